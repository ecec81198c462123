"""What is told of a task and its run, to a task process or to a trigger that a task starts in."""

from __future__ import annotations

from typing import Any

import msgspec

from roost.models.queries.dispatches import Claimed
from roost.models.sql import Row
from roost.support.wire import TaskSpec

__all__ = ["TASK_COLUMNS", "task_spec"]

TASK_COLUMNS = (
    "ti.id AS ti_id, ti.task_id, ti.map_index, ti.pool, ti.pool_slots, "
    "ti.priority_weight, run.dag_id, run.run_id, run.run_type, run.logical_date, "
    "run.interval_start, run.interval_end, run.queued_at AS run_queued_at, "
    "run.start_date AS run_start_date, run.conf"
)
"""What :func:`task_spec` reads of ``task_instance ti`` and ``dag_run run``; ``queue`` and
``try_number`` are those of the dispatch or wait, and so are not among them."""


def task_spec(row: Row | Claimed, **more: Any) -> TaskSpec:
    """The spec of a task instance of a run.

    Args:
        row: the task instance and its run, as a worker claims them or by :data:`TASK_COLUMNS`,
            with ``queue`` and ``try_number``.
        more: what is not the run's or the instance's: the dispatch, the code, what the DAG file
            says of the task, and how far the try is.
    """
    return TaskSpec(
        ti_id=row.ti_id,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        try_number=row.try_number,
        run_type=row.run_type,
        logical_date=row.logical_date,
        interval_start=row.interval_start,
        interval_end=row.interval_end,
        run_queued_at=row.run_queued_at,
        run_start_date=row.run_start_date,
        pool=row.pool,
        pool_slots=row.pool_slots,
        queue=row.queue,
        priority_weight=row.priority_weight,
        conf=msgspec.Raw(row.conf.encode()),
        **more,
    )
