"""Functions that the DAGs of this package share. Not scanned for DAGs."""
