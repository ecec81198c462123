"""Runs and their task instances as the scheduler takes them into memory, and DAG versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "InstanceRow",
    "RunRow",
    "TriggerTimeout",
    "VersionRow",
    "adopt_runs",
    "change_run_slots",
    "instances",
    "lock_run_slots",
    "mark_changed",
    "note_ending",
    "note_starter",
    "release_runs_of_ended_schedulers",
    "reread",
    "starter",
    "trigger_timeouts",
    "version",
]


class RunRow(NamedTuple):
    """An unfinished run that this scheduler has taken. Moments in microseconds, UTC.

    ``began``: it has task instances; it does when it is queued because a user cleared it.
    """

    id: int
    dag_id: str
    run_id: str
    run_type: str
    state: str
    version_id: int
    logical_date: int | None
    run_after: int
    start_date: int | None
    wish: str | None = None
    backfill_id: int | None = None
    began: bool = False


class InstanceRow(NamedTuple):
    """A task instance of a run, as the board needs it."""

    id: int
    task_id: str
    map_index: int
    state: str
    try_number: int
    losses: int
    dispatch_id: int | None
    trigger_id: int | None
    next_method: str | None
    retry_at: int | None
    first_try: int = 0


class TriggerTimeout(NamedTuple):
    """Until when a trigger waits at most, in microseconds, and what its task comes to then."""

    ti_id: int
    trigger_id: int
    timeout_at: int
    on_timeout: str


class VersionRow(NamedTuple):
    """A stored version of a DAG; ``data`` is ``roost.dag.model.SerializedDag`` as JSON."""

    id: int
    dag_id: str
    code_hash: str
    fileloc: str
    data: str


_RUN = ", ".join(RunRow._fields[:-1])
# The CTE is a fence: an inlined LIMIT below an UPDATE may lock more rows than it returns.
_ADOPT = Sql(
    "WITH pick AS MATERIALIZED (SELECT id FROM dag_run "
    "WHERE end_date IS NULL AND (job_id IS NULL OR changed) "
    "AND (job_id IS NULL OR job_id = :me) ORDER BY id LIMIT :limit {skip_locked}) "
    "UPDATE dag_run SET job_id = :me, changed = {false} WHERE id IN (SELECT id FROM pick) "
    f"RETURNING {_RUN}, "
    "EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_run_id = dag_run.id) AS began"
)
_INSTANCES = Sql(
    f"SELECT {', '.join(InstanceRow._fields)} FROM task_instance WHERE dag_run_id = :run_key "
    "ORDER BY id"
)
_VERSION = Sql(f"SELECT {', '.join(VersionRow._fields)} FROM dag_version WHERE id = :id")
_TIMEOUTS = Sql(
    "SELECT t.ti_id, t.id, t.timeout_at, t.on_timeout "
    "FROM task_instance i JOIN trigger t ON t.ti_id = i.id "
    "WHERE i.dag_run_id = :run_key AND t.timeout_at IS NOT NULL"
)
_RELEASE_ENDED = Sql(
    "UPDATE dag_run SET job_id = NULL WHERE end_date IS NULL AND job_id IS NOT NULL "
    "AND EXISTS (SELECT 1 FROM job WHERE job.id = dag_run.job_id AND job.ended_at IS NOT NULL)"
)
_MARK_CHANGED = Sql("UPDATE dag_run SET changed = {true} WHERE id = :id AND end_date IS NULL")
_NOTE_ENDING = Sql(
    "UPDATE dag_run SET wish = :wish WHERE id = :id AND end_date IS NULL AND NOT changed"
)
_NOTE_STARTER = Sql("UPDATE dag_run SET started_by = :starter WHERE id = :id")
_STARTER = Sql("SELECT started_by FROM dag_run WHERE id = :id")
_REREAD = Sql("UPDATE dag_run SET changed = {true} WHERE job_id = :me AND end_date IS NULL")
_ROOM = Sql(
    "SELECT dag_id, max_runs - runs AS room FROM dag_usage "
    "WHERE dag_id IN (SELECT r.dag_id FROM {rows:r | dag_id text}) ORDER BY dag_id {for_update}"
)
_CHANGE_SLOTS = Sql(
    "UPDATE dag_usage AS u SET runs = u.runs + r.change, "
    "shrinking = u.shrinking AND u.runs + r.change > u.max_runs "
    "FROM {rows:r | dag_id text, change integer} WHERE u.dag_id = r.dag_id"
)


def adopt_runs(tx: Tx, job_id: int, limit: int) -> list[RunRow]:
    """Take unfinished runs that no scheduler has, and take again those that others edited."""
    return sorted(RunRow._make(row) for row in tx.all(_ADOPT, me=job_id, limit=limit))


def instances(tx: Tx, run_key: int) -> list[InstanceRow]:
    """Every task instance of a run, in order of creation."""
    return [InstanceRow._make(row) for row in tx.all(_INSTANCES, run_key=run_key)]


def trigger_timeouts(tx: Tx, run_key: int) -> list[TriggerTimeout]:
    """The triggers of a run that do not wait for ever."""
    return [TriggerTimeout._make(row) for row in tx.all(_TIMEOUTS, run_key=run_key)]


def version(tx: Tx, version_id: int) -> VersionRow:
    """One stored version of a DAG."""
    row = tx.first(_VERSION, id=version_id)
    assert row is not None, "a run's version is kept by a foreign key"  # noqa: S101
    return VersionRow._make(row)


def release_runs_of_ended_schedulers(tx: Tx) -> int:
    """Make the runs of schedulers that are gone free to be taken; gives how many."""
    return tx.run(_RELEASE_ENDED)


def mark_changed(tx: Tx, run_key: int) -> None:
    """Tell the scheduler that has this run to read it again."""
    tx.run(_MARK_CHANGED, id=run_key)


def note_ending(tx: Tx, run_key: int, wish: str) -> bool:
    """Note how a running run shall end once nothing of it runs any more; False when others have
    edited it since its scheduler read it."""
    return tx.run(_NOTE_ENDING, id=run_key, wish=wish) == 1


def note_starter(tx: Tx, run_key: int, starter: str) -> None:
    """Keep which try of which task instance started a run."""
    tx.run(_NOTE_STARTER, id=run_key, starter=starter)


def starter(tx: Tx, run_key: int) -> str | None:
    """What :func:`note_starter` kept."""
    found: str | None = tx.scalar(_STARTER, id=run_key)
    return found


def reread(tx: Tx, job_id: int) -> None:
    """Have this scheduler read all its runs again: it has lost its memory."""
    tx.run(_REREAD, me=job_id)


def lock_run_slots(tx: Tx, dag_ids: Iterable[str]) -> dict[str, int]:
    """How many more runs of each DAG may be active; locked to the end of the transaction (S9)."""
    rows = tx.rows([{"dag_id": dag_id} for dag_id in dag_ids])
    return {row.dag_id: row.room for row in tx.all(_ROOM, rows=rows)}


def change_run_slots(tx: Tx, changes: Mapping[str, int]) -> None:
    """Count active runs in or out; the CHECK refuses more than ``max_active_runs`` (S9)."""
    rows = [{"dag_id": dag_id, "change": n} for dag_id, n in sorted(changes.items()) if n]
    if rows:
        tx.run(_CHANGE_SLOTS, rows=tx.rows(rows))
