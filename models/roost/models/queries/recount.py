"""Counted slots, counted anew from what holds them: a scheduler that starts trusts no sum.

Counters are changed by differences, under the rule that was in force at that moment. When the
rule itself changes (a pool that now counts deferral), or memory was lost, the truth is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from roost.dag.model import SerializedDag
from roost.models.engine import Sql, Tx

__all__ = ["recount"]

_HELD_BY = (
    "FROM dag_run r JOIN task_instance i ON i.dag_run_id = r.id JOIN pool p ON p.pool = i.pool "
    "WHERE r.end_date IS NULL AND (i.state IN ('queued', 'running') OR (p.deferred_percent > 0 AND "
    "(i.state = 'deferred' OR (i.state = 'scheduled' AND i.next_method IS NOT NULL)))) "
    "GROUP BY i.pool"
)
# In hundredths of slots: roost.models.slots.
_SUM = (
    "sum(CAST(i.pool_slots AS bigint) * CASE WHEN i.state IN ('queued', 'running') THEN 100 "
    "ELSE p.deferred_percent END)"
)
# One statement, one snapshot: without locks, for a turn locks these rows late. As a rule all is
# well, and a scheduler that starts need not wait for another.
_ANY_WRONG = Sql(
    "WITH active AS MATERIALIZED (SELECT dag_id, count(*) AS n FROM dag_run "
    "WHERE end_date IS NULL AND state = 'running' AND backfill_id IS NULL GROUP BY dag_id), "
    f"held AS MATERIALIZED (SELECT i.pool, {_SUM} AS n {_HELD_BY}) "
    "SELECT 1 FROM dag_usage u LEFT JOIN active a ON a.dag_id = u.dag_id "
    "WHERE u.runs <> coalesce(a.n, 0) UNION ALL "
    "SELECT 1 FROM pool q LEFT JOIN held h ON h.pool = q.pool WHERE q.used <> coalesce(h.n, 0)"
)
# Rows are locked in the order that a turn locks them: limits of runs first, then pools.
_LOCK_USAGE = Sql("SELECT dag_id AS name, runs AS n FROM dag_usage ORDER BY dag_id {for_update}")
_RUNS = Sql(
    "SELECT dag_id AS name, count(*) AS n FROM dag_run "
    "WHERE end_date IS NULL AND state = 'running' AND backfill_id IS NULL GROUP BY dag_id"
)
_SET_USAGE = Sql(
    "UPDATE dag_usage AS u SET runs = r.n, shrinking = r.n > u.max_runs "
    "FROM {rows:r | name text, n integer} WHERE u.dag_id = r.name"
)
# What counts in task_usage is what runs by a version in which the task has the limit (H4).
_TASKS_HELD = Sql(
    "SELECT u.dag_id, u.task_id, u.used, r.version_id, count(i.id) AS n FROM task_usage u "
    "LEFT JOIN (dag_run r JOIN task_instance i ON i.dag_run_id = r.id "
    "AND i.state IN ('queued', 'running') AND r.end_date IS NULL) "
    "ON r.dag_id = u.dag_id AND i.task_id = u.task_id "
    "GROUP BY u.dag_id, u.task_id, u.used, r.version_id"
)
_VERSION = Sql("SELECT data FROM dag_version WHERE id = :id")
_LOCK_TASKS = Sql("SELECT task_id FROM task_usage ORDER BY dag_id, task_id {for_update}")
_SET_TASKS = Sql(
    "UPDATE task_usage AS u SET used = r.n, shrinking = r.n > u.max_used "
    "FROM {rows:r | dag_id text, task_id text, n integer} "
    "WHERE u.dag_id = r.dag_id AND u.task_id = r.task_id"
)
_LOCK_POOLS = Sql("SELECT pool AS name, used AS n FROM pool ORDER BY pool {for_update}")
_HELD = Sql(f"SELECT i.pool AS name, {_SUM} AS n {_HELD_BY}")
_SET_POOLS = Sql(
    "UPDATE pool AS p SET used = r.n, version = p.version + 1, "
    "shrinking = p.slots >= 0 AND r.n > CAST(p.slots AS bigint) * 100 "
    "FROM {rows:r | name text, n bigint} WHERE p.pool = r.name"
)


def recount(tx: Tx) -> dict[str, tuple[int, int]]:
    """Set every counter to what it should be; gives ``(was, is)`` of those that were wrong."""
    wrong = _recount_tasks(tx)
    if tx.first(_ANY_WRONG) is None:
        return wrong
    for lock, count, write in (
        (_LOCK_USAGE, _RUNS, _SET_USAGE),
        (_LOCK_POOLS, _HELD, _SET_POOLS),
    ):
        noted = {row.name: int(row.n) for row in tx.all(lock)}
        counted = {row.name: int(row.n) for row in tx.all(count)}
        found = _differing(noted, counted)
        if found:
            tx.run(write, rows=tx.rows([{"name": k, "n": n} for k, (_, n) in found.items()]))
        wrong |= found
    return wrong


def _recount_tasks(tx: Tx) -> dict[str, tuple[int, int]]:
    if not _wrong_tasks(tx):
        return {}
    tx.all(_LOCK_TASKS)
    wrong = _wrong_tasks(tx)
    rows = [{"dag_id": key[0], "task_id": key[1], "n": n} for key, (_, n) in wrong.items()]
    tx.run(_SET_TASKS, rows=tx.rows(rows))
    return {".".join(key): change for key, change in wrong.items()}


def _wrong_tasks(tx: Tx) -> dict[tuple[str, str], tuple[int, int]]:
    """``(was, is)`` by ``(dag_id, task_id)`` of the counters of limited tasks that are wrong."""
    noted: dict[tuple[str, str], int] = {}
    counted: Counter[tuple[str, str]] = Counter()
    limited: dict[int, set[str]] = {}
    for row in tx.all(_TASKS_HELD):
        key = (row.dag_id, row.task_id)
        noted[key] = int(row.used)
        if row.version_id is None:
            continue
        if row.version_id not in limited:
            dag = msgspec.json.decode(tx.scalar(_VERSION, id=row.version_id), type=SerializedDag)
            limited[row.version_id] = {
                task.task_id for task in dag.tasks if task.max_active_tis_per_dag is not None
            }
        if row.task_id in limited[row.version_id]:
            counted[key] += int(row.n)
    return {key: (was, counted[key]) for key, was in noted.items() if was != counted[key]}


def _differing(noted: Mapping[str, int], counted: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {
        name: (was, counted.get(name, 0))
        for name, was in noted.items()
        if was != counted.get(name, 0)
    }
