"""What logs and errors call a task instance or a watcher, so that it can be searched for."""

from __future__ import annotations

__all__ = ["task_label", "watcher_label"]


def task_label(dag_id: str, task_id: str, map_index: int, run_id: str) -> str:
    """``etl.load[3] run manual__1``; ``map_index`` is -1 for a task that is not mapped."""
    mapped = "" if map_index < 0 else f"[{map_index}]"
    return f"{dag_id}.{task_id}{mapped} run {run_id}"


def watcher_label(name: str) -> str:
    """``watcher inbox of asset s3://a/b``."""
    return f"watcher {name}"
