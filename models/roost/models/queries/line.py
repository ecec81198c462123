"""Who stands in line for slots, as one scheduler sees it: for ``tasks why`` and the gauges."""

from __future__ import annotations

from typing import Any

from roost.models.engine import Sql, Tx
from roost.models.queries.runs import RunRow

__all__ = ["in_flight", "paused_dags", "pools", "run_of", "task_limits", "waiting_runs"]

_SAME_OWNER = "coalesce(r.job_id, -1) = coalesce(CAST(:job_id AS bigint), -1)"
_RUN = (
    "SELECT r.id, r.dag_id, r.run_id, r.run_type, r.state, r.version_id, r.logical_date, "
    "r.run_after, r.start_date, r.wish, r.backfill_id, {true} AS began"
)
_ONE = Sql(f"{_RUN}, r.job_id FROM dag_run r WHERE r.id = :id")
_WAITING = Sql(
    f"{_RUN} FROM dag_run r "
    f"WHERE r.end_date IS NULL AND r.state = 'running' AND {_SAME_OWNER} "
    "AND EXISTS (SELECT 1 FROM task_instance i WHERE i.dag_run_id = r.id "
    "AND i.state = 'scheduled') ORDER BY r.id"
)
_IN_FLIGHT = Sql(
    "SELECT count(*) FROM dag_run r JOIN task_instance i ON i.dag_run_id = r.id "
    f"WHERE r.end_date IS NULL AND i.state IN ('queued', 'running') AND {_SAME_OWNER}"
)
_POOLS = Sql("SELECT pool, slots, used, deferred_percent FROM pool")
_TASKS = Sql("SELECT dag_id, task_id, max_used, used FROM task_usage")
_PAUSED = Sql("SELECT dag_id FROM dag WHERE is_paused")


def run_of(tx: Tx, run_key: int) -> tuple[RunRow, int | None]:
    """A run as its scheduler reads it, and which scheduler that is."""
    row = tx.first(_ONE, id=run_key)
    assert row is not None, "the caller has read this run in the same snapshot"  # noqa: S101
    return RunRow._make(tuple(row)[:-1]), row.job_id


def waiting_runs(tx: Tx, job_id: int | None) -> list[RunRow]:
    """The running runs of one scheduler in which somebody waits for slots; None: of nobody."""
    return [RunRow._make(row) for row in tx.all(_WAITING, job_id=job_id)]


def in_flight(tx: Tx, job_id: int | None) -> int:
    """How many slots of its executor one scheduler has given away."""
    return int(tx.scalar(_IN_FLIGHT, job_id=job_id))


def pools(tx: Tx) -> list[Any]:
    """Every pool: name, slots, used hundredths of slots, per cent that deferred tasks hold."""
    return list(tx.all(_POOLS))


def task_limits(tx: Tx) -> dict[tuple[str, str], tuple[int, int]]:
    """``(max_active_tis_per_dag, used)`` by ``(dag_id, task_id)``."""
    return {(row.dag_id, row.task_id): (row.max_used, row.used) for row in tx.all(_TASKS)}


def paused_dags(tx: Tx) -> frozenset[str]:
    """The DAGs that are paused."""
    return frozenset(row.dag_id for row in tx.all(_PAUSED))
