"""Backfills: their rows, their limit of active runs, and how far they are (H21)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "BackfillRoom",
    "IntervalRun",
    "close",
    "create",
    "end",
    "interval_runs",
    "listed",
    "lock_room",
    "queued_runs",
    "set_paused",
    "states",
    "take_over",
]


class BackfillRoom(NamedTuple):
    """How many more runs of a backfill may be active, and in which order they start."""

    room: int
    is_reversed: bool


class IntervalRun(NamedTuple):
    """The run that an interval has already."""

    id: int
    run_id: str
    state: str
    interval_start: int


_CREATE = Sql(
    "INSERT INTO backfill (dag_id, from_date, to_date, max_active_runs, is_reversed, reprocess, "
    "conf, created_at) VALUES (:dag_id, :from_date, :to_date, :max_active_runs, :is_reversed, "
    ":reprocess, :conf, {now}) RETURNING id"
)
_LOCK = Sql(
    "SELECT id, max_active_runs, is_reversed, is_paused AND ended_at IS NULL AS is_paused "
    "FROM backfill WHERE id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY id {for_update}"
)
_ACTIVE = Sql(
    "SELECT backfill_id AS id, count(*) AS n FROM dag_run WHERE state = 'running' "
    "AND backfill_id IN (SELECT r.id FROM {rows:r | id bigint}) GROUP BY backfill_id"
)
_LEFT = (
    "EXISTS (SELECT 1 FROM dag_run r WHERE r.backfill_id = backfill.id "
    "AND r.state IN ('queued', 'running'))"
)
_CLOSE = Sql(
    "UPDATE backfill SET ended_at = {now} WHERE ended_at IS NULL "
    f"AND id IN (SELECT b.id FROM {{rows:b | id bigint}}) AND NOT {_LEFT}"
)
_END = Sql("UPDATE backfill SET ended_at = {now} WHERE id = :id AND ended_at IS NULL")
_PAUSE = Sql("UPDATE backfill SET is_paused = :paused WHERE id = :id AND is_paused <> :paused")
_LISTED = Sql(
    "SELECT id, dag_id, from_date, to_date, max_active_runs, is_reversed, reprocess, conf, "
    "is_paused, created_at, ended_at FROM backfill WHERE dag_id = :dag_id ORDER BY id DESC"
)
_STATES = Sql("SELECT state, count(*) AS n FROM dag_run WHERE backfill_id = :id GROUP BY state")
_INTERVALS = Sql(
    "SELECT id, run_id, state, interval_start FROM dag_run WHERE dag_id = :dag_id "
    "AND run_type IN ('scheduled', 'backfill') AND interval_start >= :first "
    "AND interval_start <= :last"
)
_TAKE_OVER = Sql(
    "UPDATE dag_run SET backfill_id = :id, conf = coalesce(CAST(:conf AS text), conf) "
    "WHERE id IN (SELECT r.id FROM {rows:r | id bigint})"
)
_QUEUED = Sql("SELECT id FROM dag_run WHERE backfill_id = :id AND state = 'queued' ORDER BY id")


def create(tx: Tx, **columns: Any) -> int:
    """A new backfill; gives its id."""
    return int(tx.scalar(_CREATE, **columns))


def lock_room(tx: Tx, ids: Iterable[int]) -> dict[int, BackfillRoom]:
    """How many more runs of each may be active; locked to the end of the transaction.

    A backfill that is paused has no room.
    """
    rows = tx.rows([{"id": id_} for id_ in ids])
    locked = tx.all(_LOCK, rows=rows)
    active = {row.id: int(row.n) for row in tx.all(_ACTIVE, rows=rows)} if locked else {}
    return {
        row.id: BackfillRoom(
            0 if row.is_paused else row.max_active_runs - active.get(row.id, 0),
            bool(row.is_reversed),
        )
        for row in locked
    }


def close(tx: Tx, ids: Iterable[int]) -> None:
    """Note the end of those of which no run is left to do."""
    tx.run(_CLOSE, rows=tx.rows([{"id": id_} for id_ in ids]))


def end(tx: Tx, backfill_id: int) -> None:
    """Note the end of one, whatever is left of it."""
    tx.run(_END, id=backfill_id)


def set_paused(tx: Tx, backfill_id: int, paused: bool) -> bool:
    """Pause or unpause; False when it is so already."""
    return tx.run(_PAUSE, id=backfill_id, paused=paused) == 1


def listed(tx: Tx, dag_id: str) -> list[Any]:
    """The backfills of a DAG, newest first."""
    return list(tx.all(_LISTED, dag_id=dag_id))


def states(tx: Tx, backfill_id: int) -> dict[str, int]:
    """How many of its runs are in each state."""
    return {row.state: int(row.n) for row in tx.all(_STATES, id=backfill_id)}


def interval_runs(tx: Tx, dag_id: str, first: int, last: int) -> dict[int, IntervalRun]:
    """The scheduled and backfilled runs of intervals that start in ``[first, last]``, by start."""
    rows = tx.all(_INTERVALS, dag_id=dag_id, first=first, last=last)
    return {row.interval_start: IntervalRun._make(row) for row in rows}


def take_over(tx: Tx, backfill_id: int, run_keys: Iterable[int], conf: str | None) -> None:
    """Make runs that exist part of a backfill, with another conf unless that is None."""
    rows = tx.rows([{"id": key} for key in run_keys])
    tx.run(_TAKE_OVER, id=backfill_id, rows=rows, conf=conf)


def queued_runs(tx: Tx, backfill_id: int) -> list[int]:
    """The runs of a backfill that have not started."""
    return [row.id for row in tx.all(_QUEUED, id=backfill_id)]
