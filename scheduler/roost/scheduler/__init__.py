"""The scheduler: one loop of steps, chores beside it, DAG files parsed in children."""
