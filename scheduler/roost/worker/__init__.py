"""The worker: a supervisor, warm templates of DAG files, a process for each task."""
