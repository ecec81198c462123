"""Maintenance, one chore a file: each with its interval and its batch size."""
