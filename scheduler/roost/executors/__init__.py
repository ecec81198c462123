"""Executors: what brings a dispatch from the scheduler to something that runs it."""
