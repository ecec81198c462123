"""The worker's side of a dispatch: claim it, learn what it is, hold it, end it.

A claim is one transaction: the rows of the queue, the moves queued -> running, and everything a
task process needs to know. Outcomes go back many in one statement. A worker whose job was ended
by others claims nothing and ends nothing (S15).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from roost.models import transitions
from roost.models.engine import Sql, Tx
from roost.models.states import Event

__all__ = [
    "Claimed",
    "DagCode",
    "claim",
    "dag_codes",
    "end_dispatches",
    "held",
    "name_instances",
    "start",
    "waiting",
    "wished",
]


class Claimed(NamedTuple):
    """One dispatch that a worker has taken, joined with its task instance and run.

    Of a callback (H23) only ``callback`` (JSON), the run and the queue mean something.
    """

    id: int
    priority: int
    ti_id: int
    dag_id: str
    run_id: str
    run_type: str
    task_id: str
    map_index: int
    try_number: int
    version_id: int
    logical_date: int | None
    interval_start: int | None
    interval_end: int | None
    run_queued_at: int
    run_start_date: int | None
    start_date: int | None
    conf: str
    pool: str
    pool_slots: int
    queue: str
    priority_weight: int
    next_method: str | None
    next_kwargs: str | None
    run_us: int
    first_try: int
    callback: str | None


class DagCode(NamedTuple):
    """One version of a DAG: its structure as JSON, and the text of its file."""

    version_id: int
    data: str
    fileloc: str
    code_hash: str
    source: str


# FOR SHARE on the job's row: whoever wants to declare this worker dead waits for the claim to
# commit and then sees what it holds. SKIP LOCKED may be used because nothing shared is counted.
_PICK = (
    "WITH me AS MATERIALIZED (SELECT id FROM job WHERE id = :me AND ended_at IS NULL {for_share}), "
    "pick AS MATERIALIZED (SELECT d.id, d.ti_id FROM dispatch d "
    "WHERE d.job_id IS NULL AND d.ended_at IS NULL AND d.wish IS NULL "
    "AND EXISTS (SELECT 1 FROM me) "
    "AND d.queue IN (SELECT q.queue FROM {rows:q = queues | queue text}) "
    "ORDER BY d.priority DESC, d.id LIMIT :limit {skip_locked}) "
    "UPDATE dispatch AS d SET job_id = :me, claimed_at = {now} "
)
_COLUMNS = (
    "d.id, d.priority, COALESCE(d.ti_id, 0) AS ti_id, r.dag_id, r.run_id, r.run_type, "
    "COALESCE(t.task_id, '') AS task_id, COALESCE(t.map_index, -1) AS map_index, "
    "COALESCE(t.try_number, 0) AS try_number, r.version_id, r.logical_date, r.interval_start, "
    "r.interval_end, r.queued_at AS run_queued_at, r.start_date AS run_start_date, t.start_date, "
    "r.conf, COALESCE(t.pool, '') AS pool, COALESCE(t.pool_slots, 0) AS pool_slots, d.queue, "
    "COALESCE(t.priority_weight, 0) AS priority_weight, t.next_method, t.next_kwargs, "
    "COALESCE(t.run_us, 0) AS run_us, COALESCE(t.first_try, 0) AS first_try, d.callback"
)
_CLAIM_POSTGRES = Sql(
    _PICK + "FROM pick LEFT JOIN task_instance t ON t.id = pick.ti_id, dag_run r "
    "WHERE d.id = pick.id AND d.job_id IS NULL AND r.id = d.dag_run_id "
    f"RETURNING {_COLUMNS}"
)
# SQLite's RETURNING knows no other table than the one that is changed.
_CLAIM_SQLITE = Sql(_PICK + "WHERE d.id IN (SELECT id FROM pick) RETURNING id")
_READ = Sql(
    f"SELECT {_COLUMNS} FROM dispatch d LEFT JOIN task_instance t ON t.id = d.ti_id "
    "JOIN dag_run r ON r.id = d.dag_run_id "
    "WHERE d.id IN (SELECT c.id FROM {rows:c | id bigint})"
)
_CODES = Sql(
    "SELECT v.id, v.data, v.fileloc, v.code_hash, s.source FROM dag_version v "
    "JOIN dag_source s ON s.code_hash = v.code_hash "
    "WHERE v.id IN (SELECT c.id FROM {rows:c | id bigint})"
)
_END = Sql(
    "UPDATE dispatch AS d SET ended_at = {now}, outcome = r.outcome "
    "FROM {rows:r | dispatch_id bigint, outcome text} "
    # The plus keeps SQLite off the index on job_id: it would look at every row for every row.
    "WHERE d.id = r.dispatch_id AND +d.job_id = :me AND d.ended_at IS NULL RETURNING id"
)
_NAME = Sql(
    "UPDATE task_instance AS t SET map_name = r.name "
    "FROM {rows:r | ti_id bigint, name text} WHERE t.id = r.ti_id"
)
_HELD = Sql(
    "SELECT d.id, d.ti_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM task_instance t "
    "WHERE t.id = d.ti_id AND t.state = 'running' AND t.dispatch_id = d.id) AS undead "
    "FROM dispatch d WHERE d.job_id = :me AND d.ended_at IS NULL"
)
_WISHED = Sql(
    "SELECT id FROM dispatch WHERE job_id = :me AND ended_at IS NULL AND wish IS NOT NULL"
)
_WAITING = Sql(
    "SELECT count(*) FROM (SELECT 1 FROM dispatch WHERE job_id IS NULL AND ended_at IS NULL "
    "AND wish IS NULL "
    "AND queue IN (SELECT q.queue FROM {rows:q = queues | queue text}) LIMIT :limit) AS w"
)


def claim(tx: Tx, job_id: int, queues: Sequence[str], limit: int) -> list[Claimed]:
    """Take the best waiting dispatches, at most ``limit``, by priority and then by age.

    Gives nothing when the job has been ended by others. The task instances still are ``queued``:
    :func:`start` moves them, in the same transaction.
    """
    params = {"me": job_id, "limit": limit, "queues": tx.rows([{"queue": q} for q in queues])}
    if tx.dialect == "postgresql":
        rows = tx.all(_CLAIM_POSTGRES, **params)
    else:
        rows = tx.all(_CLAIM_SQLITE, **params)
        if rows:
            rows = tx.all(_READ, rows=tx.rows([{"id": row.id} for row in rows]))
    claimed = [Claimed._make(row) for row in rows]
    claimed.sort(key=lambda one: (-one.priority, one.id))
    return claimed


def start(tx: Tx, claimed: Sequence[Claimed], *, now: int, hostname: str, actor: str) -> set[int]:
    """Move queued -> running; gives the ids of the dispatches that may start.

    Those are the ones whose task instances moved, and callbacks, which move nothing.

    Args:
        tx: the transaction of the claim.
        claimed: what :func:`claim` gave.
        now: the start of a try that has not started yet; a resume keeps its own (D3).
        hostname: where it runs.
        actor: for the log.
    """
    moved = {one.id for one in claimed if one.callback is not None}
    for fresh in (True, False):
        rows: list[Mapping[str, Any]] = [
            {
                "id": one.ti_id,
                "if_dispatch_id": one.id,
                "hostname": hostname,
                **({"start_date": now} if fresh else {}),
            }
            for one in claimed
            if (one.start_date is None) is fresh and one.callback is None
        ]
        moves = transitions.move(
            tx,
            Event.START,
            rows,
            actor=actor,
            sets=("hostname", "start_date") if fresh else ("hostname",),
            guards=("dispatch_id",),
        )
        moved.update(move.dispatch_id for move in moves if move.dispatch_id is not None)
    return moved


def dag_codes(tx: Tx, version_ids: Sequence[int]) -> list[DagCode]:
    """Structure and source text of DAG versions."""
    rows = tx.all(_CODES, rows=tx.rows([{"id": id_} for id_ in version_ids]))
    return [DagCode._make(row) for row in rows]


def end_dispatches(tx: Tx, job_id: int, outcomes: Mapping[int, str]) -> set[int]:
    """Write outcomes (:class:`roost.support.wire.Outcome` as JSON) by dispatch id.

    Gives the ids that took theirs: not those that others have ended meanwhile (S2).
    """
    rows = [{"dispatch_id": id_, "outcome": out} for id_, out in sorted(outcomes.items())]
    return {row.id for row in tx.all(_END, me=job_id, rows=tx.rows(rows))} if rows else set()


def name_instances(tx: Tx, names: Mapping[int, str]) -> None:
    """Keep what instances of mapped tasks are called, by task instance (H17)."""
    if names:
        rows = [{"ti_id": id_, "name": name} for id_, name in sorted(names.items())]
        tx.run(_NAME, rows=tx.rows(rows))


def held(tx: Tx, job_id: int) -> dict[int, bool]:
    """Dispatches that this worker has claimed and nobody has ended.

    The value is True where the task instance does not run for it any more: somebody has edited
    its row (S107).
    """
    return {row.id: bool(row.undead) for row in tx.all(_HELD, me=job_id)}


def wished(tx: Tx, job_id: int) -> set[int]:
    """Those of :func:`held` that a user wants to end otherwise: their tasks are to be killed."""
    return {row.id for row in tx.all(_WISHED, me=job_id)}


def waiting(tx: Tx, queues: Sequence[str], limit: int) -> int:
    """How many dispatches wait in these queues, counted up to ``limit``."""
    listed = tx.rows([{"queue": q} for q in queues])
    return int(tx.scalar(_WAITING, queues=listed, limit=limit))
