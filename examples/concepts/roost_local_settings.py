"""A cluster policy: every task of every DAG passes through here when its file is loaded."""

from datetime import timedelta


def policy(task):
    if task.__class__.__name__ == "HivePartitionSensor":
        task.queue = "sensor_queue"
    if task.timeout > timedelta(hours=48).total_seconds():
        task.timeout = timedelta(hours=48).total_seconds()
