"""Handing over to the executor: dispatch ids, dispatch rows, pools and their counted slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "Handoff",
    "PoolRow",
    "allocate_ids",
    "change_pools",
    "change_tasks",
    "create_dispatches",
    "end_lost_dispatches",
    "lock_pools",
    "lock_tasks",
]


class Handoff(NamedTuple):
    """One dispatch of a task instance: a row of the queue that workers claim from.

    Or one of a callback (H23): ``ti_id`` is None, ``callback`` is a
    :class:`roost.support.wire.CallbackSpec` as JSON, and ``try_number`` counts its hand-overs.
    """

    id: int
    ti_id: int | None
    dag_run_id: int
    try_number: int
    queue: str
    priority: int
    callback: str | None = None


class PoolRow(NamedTuple):
    """A pool; ``slots`` -1 is without limit (S40), ``used`` is in hundredths of slots, and
    ``deferred_percent`` is how much of its slots a deferred task holds (H5)."""

    pool: str
    slots: int
    used: int
    deferred_percent: int


_FIRST_BLOCK = Sql(
    "INSERT INTO id_block (name, next) VALUES (:name, 1) ON CONFLICT (name) DO NOTHING"
)
_NEXT_BLOCK = Sql(
    "UPDATE id_block SET next = next + :size WHERE name = :name RETURNING next - :size"
)
_CREATE = Sql(
    "INSERT INTO dispatch "
    "(id, ti_id, dag_run_id, try_number, queue, priority, callback, created_at) "
    "SELECT r.id, r.ti_id, r.dag_run_id, r.try_number, r.queue, r.priority, r.callback, {now} "
    "FROM {rows:r | id bigint, ti_id bigint, dag_run_id bigint, try_number integer, queue text, "
    "priority integer, callback text}"
)
_LOCK_POOLS = Sql(
    "SELECT pool, slots, used, deferred_percent FROM pool "
    "WHERE pool IN (SELECT r.pool FROM {rows:r | pool text}) ORDER BY pool {for_update}"
)
_CHANGE_POOLS = Sql(
    "UPDATE pool AS p SET used = p.used + r.change, version = p.version + 1, "
    "shrinking = p.shrinking AND p.slots >= 0 "
    "AND p.used + r.change > CAST(p.slots AS bigint) * 100 "
    "FROM {rows:r | pool text, change bigint} WHERE p.pool = r.pool"
)
_LOCK_TASKS = Sql(
    "SELECT u.dag_id, u.task_id, u.max_used - u.used AS room FROM task_usage u "
    "WHERE (u.dag_id, u.task_id) IN (SELECT r.dag_id, r.task_id "
    "FROM {rows:r | dag_id text, task_id text}) ORDER BY u.dag_id, u.task_id {for_update}"
)
_CHANGE_TASKS = Sql(
    "UPDATE task_usage AS u SET used = u.used + r.change, "
    "shrinking = u.shrinking AND u.used + r.change > u.max_used "
    "FROM {rows:r | dag_id text, task_id text, change integer} "
    "WHERE u.dag_id = r.dag_id AND u.task_id = r.task_id"
)
_END_LOST = Sql(
    "UPDATE dispatch SET ended_at = {now}, outcome = :outcome "
    "WHERE ended_at IS NULL AND job_id IS NOT NULL "
    "AND EXISTS (SELECT 1 FROM job WHERE job.id = dispatch.job_id AND job.ended_at IS NOT NULL) "
    "RETURNING id"
)


def allocate_ids(tx: Tx, name: str, size: int) -> int:
    """Reserve ``size`` consecutive numbers of a sequence; gives the first."""
    first = tx.scalar(_NEXT_BLOCK, name=name, size=size)
    if first is None:
        tx.run(_FIRST_BLOCK, name=name)
        first = tx.scalar(_NEXT_BLOCK, name=name, size=size)
    return int(first)


def create_dispatches(tx: Tx, handoffs: Sequence[Handoff]) -> None:
    """Write dispatch rows: the queue of the LocalExecutor, the outbox of any other."""
    if handoffs:
        tx.run(_CREATE, rows=tx.rows([handoff._asdict() for handoff in handoffs]))


def end_lost_dispatches(tx: Tx, outcome: str) -> list[int]:
    """End what workers held that are gone; ``outcome`` says so. Gives the dispatch ids."""
    return [row[0] for row in tx.all(_END_LOST, outcome=outcome)]


def lock_pools(tx: Tx, names: Sequence[str]) -> list[PoolRow]:
    """Pools locked to the end of the transaction, in one order, so that schedulers cannot
    deadlock; a limit shared by several must not be counted from unlocked rows."""
    rows = tx.rows([{"pool": name} for name in names])
    return [PoolRow._make(row) for row in tx.all(_LOCK_POOLS, rows=rows)]


def change_pools(tx: Tx, changes: Mapping[str, int]) -> None:
    """Add hundredths to the used slots; the CHECK refuses what would exceed the pool (S8)."""
    rows = [{"pool": pool, "change": n} for pool, n in sorted(changes.items()) if n]
    if rows:
        tx.run(_CHANGE_POOLS, rows=tx.rows(rows))


def lock_tasks(tx: Tx, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """How many more instances of each task ``(dag_id, task_id)`` may be in flight, by
    ``max_active_tis_per_dag``; locked to the end of the transaction (H4)."""
    rows = tx.rows([{"dag_id": dag_id, "task_id": task_id} for dag_id, task_id in keys])
    return {(row.dag_id, row.task_id): row.room for row in tx.all(_LOCK_TASKS, rows=rows)}


def change_tasks(tx: Tx, changes: Mapping[tuple[str, str], int]) -> None:
    """Count task instances in or out of their task's limit; the CHECK refuses more (H4)."""
    rows = [
        {"dag_id": dag_id, "task_id": task_id, "change": n}
        for (dag_id, task_id), n in sorted(changes.items())
        if n
    ]
    if rows:
        tx.run(_CHANGE_TASKS, rows=tx.rows(rows))
