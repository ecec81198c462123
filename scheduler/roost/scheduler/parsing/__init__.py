"""From the DAGs folder to stored DAG versions; user code runs only in short-lived children."""
