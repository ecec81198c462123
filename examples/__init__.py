"""DAGs that run as they are, and the demo that `make demo` starts."""
