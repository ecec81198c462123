"""Triggers whose wait a user has ended: their rows move here until ``on_kill()`` was called (D10).

Whoever ran a trigger has its kill as well, for it has the trigger itself; when that triggerer is
gone, or never was, another one claims it. Each claim has an epoch, and what has been done is told
under it, so a stale owner settles nothing.

That a triggerer or its host ends says nothing against a kill that it had in hand: it is tried
again, ever later. Only runners that it ended itself are held against it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.queries import jobs
from roost.models.queries.task_specs import TASK_COLUMNS
from roost.models.queries.trigger_specs import spec_of, start_spec
from roost.models.sql import Row
from roost.support.clock import SECOND
from roost.support.crypto import Keyring
from roost.support.trigger_wire import TriggerSpec

__all__ = [
    "KEPT_US",
    "MOST_STRIKES",
    "UNTRIED_US",
    "Kill",
    "Lost",
    "claim",
    "expire",
    "finish",
    "kill_triggers_of",
    "let_go",
    "pending",
    "tried_before",
]

MOST_STRIKES = 3
"""So many runners may it end."""
KEPT_US = 86_400 * SECOND
"""So long it is tried, whatever ended the triggerers that had it."""
_TRIES = 3  # as often at least: they may all have been away for a day
UNTRIED_US = 7 * KEPT_US
"""So long it waits for triggerers that come for it."""
_PAUSE_US = SECOND  # before the third try, and twice as long before each that follows
_DOUBLINGS = 11
_LONGEST_PAUSE_US = 3600 * SECOND


class Kill(NamedTuple):
    """A kill that was claimed.

    Attributes:
        spec: the trigger; its epoch is that of the claim.
        attempts: how often a runner was given it, this time included.
        strikes: how many of them it ended.
    """

    spec: TriggerSpec
    attempts: int
    strikes: int


class Lost(NamedTuple):
    """A kill that no runner has in hand any more, and what it was of."""

    id: int
    classpath: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    attempts: int
    strikes: int


# Of what only waited as a row, and of what no runner has made yet, there is nothing to end. What
# has fired is over already, whoever reads of it.
_KILLED = (
    "t.lane = 'poll' AND t.fired_at IS NULL AND (t.start IS NULL OR t.epoch > 0) "
    "AND ti.id = t.ti_id AND run.id = t.dag_run_id"
)
_MOVED = (
    "t.id, t.classpath, t.source, t.kwargs, t.code_hash, t.fileloc, t.queue, run.dag_id, "
    "run.run_id, ti.task_id, ti.map_index, ti.try_number, {{now}}, t.job_id, t.epoch, "
    "t.dispatch_id, t.start FROM {table} t, task_instance ti, dag_run run WHERE " + _KILLED
)
_INTO = (
    "INSERT INTO trigger_kill (id, classpath, source, kwargs, code_hash, fileloc, queue, dag_id, "
    "run_id, task_id, map_index, try_number, created_at, job_id, epoch, dispatch_id, start) SELECT "
)
_OF_TASKS = "ti_id IN (SELECT r.id FROM {rows:r | id bigint})"
# What is deleted is read as it was deleted: an event that is stored at this moment is seen, or not.
_KILL_POSTGRES = Sql(
    f"WITH gone AS (DELETE FROM trigger WHERE {_OF_TASKS} RETURNING *) "
    + _INTO
    + _MOVED.format(table="gone")
)
_KILL_SQLITE = Sql(_INTO + _MOVED.format(table="trigger") + f" AND t.{_OF_TASKS}")
_DELETE = Sql(f"DELETE FROM trigger WHERE {_OF_TASKS}")
_LOST = ", ".join(Lost._fields)
_FREE = (
    "(k.job_id IS NULL "
    "OR NOT EXISTS (SELECT 1 FROM job j WHERE j.id = k.job_id AND j.ended_at IS NULL))"
)
_EXPIRE = Sql(
    "DELETE FROM trigger_kill AS k WHERE (strikes >= :strikes "
    "OR (created_at < {now} - :kept AND attempts >= :tries) OR created_at < {now} - :untried) "
    f"AND {_FREE} RETURNING {_LOST}"
)
_LET_GO = Sql(
    "UPDATE trigger_kill SET job_id = NULL, strikes = trigger_kill.strikes + r.strikes "
    "FROM {rows:r | id bigint, epoch integer, strikes integer} "
    "WHERE trigger_kill.id = r.id AND trigger_kill.epoch = r.epoch "
    "AND trigger_kill.job_id = :job_id "
    "RETURNING " + ", ".join(f"trigger_kill.{name} AS {name}" for name in Lost._fields)
)
_IS_DUE = "(k.retry_at IS NULL OR k.retry_at <= {now})"
_CLAIM = (
    "WITH pick AS (SELECT k.id FROM trigger_kill k WHERE (k.job_id = :job_id OR (" + _FREE + " "
    "{queues})) AND (k.attempts = 0 OR :tried = 1) AND {due} "
    "AND k.id NOT IN (SELECT b.id FROM {{rows:b = busy | id bigint}}) "
    "ORDER BY k.id LIMIT :batch {{skip_locked}}) "
    "UPDATE trigger_kill SET job_id = :job_id, epoch = epoch + 1, attempts = attempts + 1, "
    "retry_at = {{now}} + CASE WHEN attempts = 0 THEN 0 WHEN attempts > :doublings THEN :longest "
    "ELSE CAST(:pause AS bigint) * (1 << (attempts - 1)) END "
    "WHERE id IN (SELECT id FROM pick) RETURNING *"
)
_CLAIM_ANY = Sql(_CLAIM.format(due=_IS_DUE, queues=""))
_CLAIM_QUEUES = Sql(
    _CLAIM.format(
        due=_IS_DUE, queues="AND k.queue IN (SELECT q.queue FROM {rows:q = queues | queue text})"
    )
)
_TRIED = Sql(
    "SELECT 1 AS one FROM trigger_kill k WHERE k.attempts > 0 "
    f"AND (k.job_id = :job_id OR {_FREE}) AND {_IS_DUE} LIMIT 1"
)
_PENDING = Sql("SELECT k.id FROM {rows:r | id bigint} JOIN trigger_kill k ON k.id = r.id")
# By id, and not by job: each of its kills would be held against each that is done.
_FINISH = Sql(
    "DELETE FROM trigger_kill WHERE job_id + 0 = :job_id "
    "AND (id, epoch) IN (SELECT r.id, r.epoch FROM {rows:r | id bigint, epoch integer})"
)
_STARTS = Sql(
    "SELECT k.id, k.dispatch_id, k.code_hash, k.fileloc, k.queue, k.try_number, "
    f"COALESCE(ti.start_date, k.created_at) AS start_date, {TASK_COLUMNS} "
    "FROM {rows:r | id bigint} JOIN trigger_kill k ON k.id = r.id "
    "JOIN dag_run run ON run.dag_id = k.dag_id AND run.run_id = k.run_id "
    "JOIN task_instance ti ON ti.dag_run_id = run.id AND ti.task_id = k.task_id "
    "AND ti.map_index = k.map_index"
)


def kill_triggers_of(tx: Tx, ti_ids: Iterable[int]) -> None:
    """Remove what task instances wait for, with its events, for a user ends the waits.

    What may have begun elsewhere is ended by ``on_kill()`` of its trigger, later on.
    """
    rows = tx.rows([{"id": ti_id} for ti_id in ti_ids])
    if tx.dialect == "postgresql":
        tx.run(_KILL_POSTGRES, rows=rows)
    else:
        tx.run(_KILL_SQLITE, rows=rows)
        tx.run(_DELETE, rows=rows)


def claim(
    tx: Tx,
    job_id: int,
    batch: int,
    busy: Collection[int],
    *,
    tried: bool = True,
    queues: Sequence[str] = (),
    keys: Keyring | None = None,
) -> list[Kill]:
    """Take what this triggerer is to kill, and what nobody who lives is, as far as it is due.

    Oldest first.

    Args:
        tx: the transaction.
        job_id: the claiming triggerer; without its lease nothing is claimed.
        batch: at most this many.
        busy: those that it has in hand.
        tried: those as well that a runner has had before.
        queues: of others only those of these queues; empty: of every queue.
        keys: what they do not decrypt has the ``error`` of its spec set; None: it is plain.
    """
    if not jobs.owns_lease(tx, job_id):
        return []
    params = {
        "job_id": job_id,
        "batch": batch,
        "tried": int(tried),
        "busy": _ids(tx, busy),
        "doublings": _DOUBLINGS + 1,
        "longest": _LONGEST_PAUSE_US,
        "pause": _PAUSE_US,
    }
    if queues:
        wanted = tx.rows([{"queue": queue} for queue in queues])
        rows = tx.all(_CLAIM_QUEUES, **params, queues=wanted)
    else:
        rows = tx.all(_CLAIM_ANY, **params)
    starts = {}
    if starting := [row.id for row in rows if row.start is not None]:
        starts = {row.id: row for row in tx.all(_STARTS, rows=_ids(tx, starting))}
    rows = sorted(rows, key=lambda row: row.id)  # what an UPDATE returns is in no order
    return [Kill(_spec(row, starts, keys), row.attempts, row.strikes) for row in rows]


def let_go(tx: Tx, job_id: int, struck: Mapping[int, tuple[int, int]]) -> list[Lost]:
    """A runner has ended that had these in hand: whoever comes first tries them again.

    Args:
        tx: the transaction.
        job_id: whose runner it was. Of another's claim nothing is written.
        struck: by id the epoch, and 1 if it ended the runner, else 0.
    """
    rows = [{"id": id_, "epoch": told[0], "strikes": told[1]} for id_, told in struck.items()]
    return [Lost._make(row) for row in tx.all(_LET_GO, job_id=job_id, rows=tx.rows(rows))]


def expire(tx: Tx) -> list[Lost]:
    """Give up what has ended too many runners, or is too old; gives these."""
    limits = {"strikes": MOST_STRIKES, "kept": KEPT_US, "tries": _TRIES, "untried": UNTRIED_US}
    return [Lost._make(row) for row in tx.all(_EXPIRE, **limits)]


def tried_before(tx: Tx, job_id: int) -> bool:
    """Whether one of them is due that a runner had before, of this triggerer or of one that is
    gone."""
    return tx.first(_TRIED, job_id=job_id) is not None


def pending(tx: Tx, trigger_ids: Iterable[int]) -> set[int]:
    """Which of these triggers are still to be killed, by whomever."""
    return {row.id for row in tx.all(_PENDING, rows=_ids(tx, trigger_ids))}


def finish(tx: Tx, job_id: int, done: Mapping[int, int]) -> None:
    """What has been killed needs no more care; epoch by id. Only the claim in force says so."""
    rows = tx.rows([{"id": id_, "epoch": epoch} for id_, epoch in done.items()])
    tx.run(_FINISH, job_id=job_id, rows=rows)


def _spec(row: Row, starts: Mapping[int, Row], keys: Keyring | None) -> TriggerSpec:
    start = start_spec(starts[row.id], row.start) if row.id in starts else None
    return spec_of(row.id, row, start, keys)


def _ids(tx: Tx, ids: Iterable[int]) -> str:
    return tx.rows([{"id": id_} for id_ in ids])
