"""What the scheduler does besides deciding, one chore a file."""
