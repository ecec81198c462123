"""What one pass does: create runs, settle outcomes, decide, enqueue."""
