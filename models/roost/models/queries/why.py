"""What ``tasks why`` asks: who is in the way of one task instance, and how a try ended."""

from __future__ import annotations

from typing import Any

from roost.models.engine import Sql, Tx

__all__ = [
    "dispatch",
    "end_of_try",
    "run_id",
    "run_slots",
    "runs_ahead",
    "trigger",
    "trigger_by_id",
]

_RUN_SLOTS = Sql("SELECT runs, max_runs FROM dag_usage WHERE dag_id = :dag_id")
_BACKFILL_SLOTS = Sql(
    "SELECT max_active_runs AS max_runs, is_paused, (SELECT count(*) FROM dag_run r "
    "WHERE r.backfill_id = backfill.id AND r.state = 'running') AS runs "
    "FROM backfill WHERE id = :id"
)
_DISPATCH = Sql(
    "SELECT d.id, d.queue, d.created_at, d.claimed_at, d.ended_at, j.hostname, j.pid, "
    "(SELECT count(*) FROM dispatch o WHERE o.job_id IS NULL AND o.ended_at IS NULL "
    "AND o.queue = d.queue AND (o.priority > d.priority OR (o.priority = d.priority "
    "AND o.id < d.id))) AS ahead "
    "FROM dispatch d LEFT JOIN job j ON j.id = d.job_id "
    "WHERE d.ti_id = :ti_id AND NOT d.settled ORDER BY d.id DESC LIMIT 1"
)
_TRIGGERS = (
    "SELECT t.*, j.hostname, j.pid, r.dag_id, r.run_id, i.task_id, i.map_index, i.try_number, "
    "t.external_key IS NOT NULL AND EXISTS (SELECT 1 FROM external_event e "
    "WHERE e.external_key = t.external_key AND e.taken_at IS NULL AND e.expires_at > {now}) "
    "AS heard, CASE WHEN t.watcher_hash IS NOT NULL THEN (SELECT min(w.name) FROM asset_watcher w "
    "WHERE w.hash = t.watcher_hash) END AS watcher "
    "FROM trigger t LEFT JOIN dag_run r ON r.id = t.dag_run_id "
    "LEFT JOIN task_instance i ON i.id = t.ti_id LEFT JOIN job j ON j.id = t.job_id "
)
_TRIGGER = Sql(_TRIGGERS + "WHERE t.ti_id = :ti_id")
_TRIGGER_BY_ID = Sql(_TRIGGERS + "WHERE t.id = :trigger_id")
_RUN_ID = Sql("SELECT run_id FROM dag_run WHERE id = :id")
_RUNS_AHEAD = Sql(
    "SELECT count(*) FROM dag_run WHERE dag_id = :dag_id AND state = 'queued' "
    "AND end_date IS NULL AND (coalesce(logical_date, run_after) < :date "
    "OR (coalesce(logical_date, run_after) = :date AND id < :id))"
)
_END_OF_TRY = Sql(
    "SELECT at, to_state, reason FROM event_log WHERE ti_id = :ti_id AND try_number = :number "
    "AND to_state NOT IN ('scheduled', 'queued', 'running') AND reason IS NOT NULL "
    "ORDER BY id DESC LIMIT 1"
)


def run_slots(tx: Tx, dag_id: str) -> Any | None:
    """Active runs of a DAG and how many there may be."""
    return tx.first(_RUN_SLOTS, dag_id=dag_id)


def backfill_slots(tx: Tx, backfill_id: int) -> Any | None:
    """Active runs of a backfill, how many there may be, and whether it is paused (H21)."""
    return tx.first(_BACKFILL_SLOTS, id=backfill_id)


def dispatch(tx: Tx, ti_id: int) -> Any | None:
    """The live dispatch of a task instance, with its place in its queue."""
    return tx.first(_DISPATCH, ti_id=ti_id)


def trigger(tx: Tx, ti_id: int) -> Any | None:
    """The trigger that a deferred task instance waits for."""
    return tx.first(_TRIGGER, ti_id=ti_id)


def trigger_by_id(tx: Tx, trigger_id: int) -> Any | None:
    """The same by its id."""
    return tx.first(_TRIGGER_BY_ID, trigger_id=trigger_id)


def run_id(tx: Tx, run_key: int) -> str:
    """What a run is called."""
    return str(tx.scalar(_RUN_ID, id=run_key))


def runs_ahead(tx: Tx, run: Any) -> int:
    """How many queued runs of its DAG start before this one."""
    date = run.run_after if run.logical_date is None else run.logical_date
    return int(tx.scalar(_RUNS_AHEAD, dag_id=run.dag_id, date=date, id=run.id))


def end_of_try(tx: Tx, ti_id: int, number: int) -> Any | None:
    """The move that ended a try, or kept it from beginning, with its reason."""
    return tx.first(_END_OF_TRY, ti_id=ti_id, number=number)
