"""What ``tasks why`` asks: who is in the way of one task instance, and how a try ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "Counts",
    "counts",
    "dispatch",
    "end_of_try",
    "pool",
    "previous",
    "run_slots",
    "trigger",
]

_COUNTS = Sql(
    "SELECT (SELECT count(*) FROM dispatch WHERE ended_at IS NULL) AS in_flight, "
    "(SELECT count(*) FROM dispatch d JOIN task_instance i ON i.id = d.ti_id "
    "WHERE d.ended_at IS NULL AND d.dag_run_id = :run_key) AS of_run, "
    "(SELECT count(*) FROM dag_run r JOIN task_instance i ON i.dag_run_id = r.id "
    "WHERE r.end_date IS NULL AND i.state = 'scheduled' AND i.pool = :pool "
    "AND (i.priority_weight > :weight OR (i.priority_weight = :weight "
    "AND (coalesce(r.logical_date, r.run_after) < :date OR "
    "(coalesce(r.logical_date, r.run_after) = :date AND i.id < :ti_id))))) AS ahead, {now} AS now"
)
_POOL = Sql("SELECT slots, used FROM pool WHERE pool = :pool")
_RUN_SLOTS = Sql("SELECT runs, max_runs FROM dag_usage WHERE dag_id = :dag_id")
_DISPATCH = Sql(
    "SELECT d.id, d.queue, d.created_at, d.claimed_at, d.ended_at, j.hostname, j.pid, "
    "(SELECT count(*) FROM dispatch o WHERE o.job_id IS NULL AND o.ended_at IS NULL "
    "AND o.queue = d.queue AND (o.priority > d.priority OR (o.priority = d.priority "
    "AND o.id < d.id))) AS ahead "
    "FROM dispatch d LEFT JOIN job j ON j.id = d.job_id "
    "WHERE d.ti_id = :ti_id AND NOT d.settled ORDER BY d.id DESC LIMIT 1"
)
_TRIGGER = Sql(
    "SELECT t.id, t.lane, t.classpath, t.created_at, t.due_at, t.timeout_at, t.external_key, "
    "t.fired_at, j.hostname, j.pid FROM trigger t LEFT JOIN job j ON j.id = t.job_id "
    "WHERE t.ti_id = :ti_id"
)
_PREVIOUS = Sql(
    "SELECT i.id, i.state, r.run_id FROM dag_run r "
    "JOIN task_instance i ON i.dag_run_id = r.id AND i.task_id = :task_id "
    "WHERE r.dag_id = :dag_id AND r.logical_date < :date "
    "ORDER BY r.logical_date DESC, i.map_index LIMIT 1"
)

_END_OF_TRY = Sql(
    "SELECT at, to_state, reason FROM event_log WHERE ti_id = :ti_id AND try_number = :number "
    "AND to_state IN ('failed', 'up_for_retry') AND reason IS NOT NULL ORDER BY id DESC LIMIT 1"
)


class Counts(NamedTuple):
    """Live dispatches of all, of the run; who stands in the same pool's line before this one."""

    in_flight: int
    of_run: int
    ahead: int
    now: int


def counts(tx: Tx, run: Any, row: Any) -> Counts:
    """Count for a task instance ``row`` of a ``run``, both as listing.py reads them."""
    found = tx.first(
        _COUNTS,
        run_key=run.id,
        pool=row.pool,
        weight=row.priority_weight,
        date=run.run_after if run.logical_date is None else run.logical_date,
        ti_id=row.id,
    )
    return Counts(*(found or (0, 0, 0, 0)))


def pool(tx: Tx, name: str) -> Any | None:
    """Slots and used slots of a pool."""
    return tx.first(_POOL, pool=name)


def run_slots(tx: Tx, dag_id: str) -> Any | None:
    """Active runs of a DAG and how many there may be."""
    return tx.first(_RUN_SLOTS, dag_id=dag_id)


def dispatch(tx: Tx, ti_id: int) -> Any | None:
    """The live dispatch of a task instance, with its place in its queue."""
    return tx.first(_DISPATCH, ti_id=ti_id)


def trigger(tx: Tx, ti_id: int) -> Any | None:
    """The trigger that a deferred task instance waits for."""
    return tx.first(_TRIGGER, ti_id=ti_id)


def previous(tx: Tx, dag_id: str, task_id: str, logical_date: int) -> Any | None:
    """The same task in the run before (S23)."""
    return tx.first(_PREVIOUS, dag_id=dag_id, task_id=task_id, date=logical_date)


def end_of_try(tx: Tx, ti_id: int, number: int) -> Any | None:
    """The move that ended a failed try, with its reason: one line or a traceback."""
    return tx.first(_END_OF_TRY, ti_id=ti_id, number=number)
