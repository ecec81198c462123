"""Roost measured on this machine, printed beside what Airflow reached: ``python -m benchmarks``."""
