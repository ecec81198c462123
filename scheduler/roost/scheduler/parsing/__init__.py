"""DAG files: found, imported one by one in a child, stored as checked JSON."""
