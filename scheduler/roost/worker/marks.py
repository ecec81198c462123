"""The environment variables by which a worker's processes are found in ``/proc/<pid>/environ``."""

from __future__ import annotations

__all__ = ["MARK", "NO_TASK", "TOKEN", "task_mark"]

TOKEN = "ROOST_WORKER_TOKEN"  # noqa: S105 - the name of a mark, not a secret
"""Holds the supervisor's incarnation in all that descends from it."""

MARK = "ROOST_TASK_MARK"
"""Holds the dispatch id in all that descends from a task, even if it was only forked."""


def task_mark(dispatch_id: int) -> bytes:
    """The mark of a dispatch; all marks are equally long, so one overwrites another in place."""
    return b"%020d" % dispatch_id


NO_TASK = task_mark(0)
