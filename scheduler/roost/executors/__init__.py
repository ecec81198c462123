"""Executors: where the scheduler hands a task instance to, and how it hears of its end."""
