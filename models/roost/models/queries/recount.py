"""Counted slots, counted anew from what holds them: a scheduler that starts trusts no sum.

Counters are changed by differences, under the rule that was in force at that moment. When the
rule itself changes (a pool that now counts deferral), or memory was lost, the truth is counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from roost.models.engine import Sql, Tx

__all__ = ["recount"]

_HELD_BY = (
    "FROM dag_run r JOIN task_instance i ON i.dag_run_id = r.id JOIN pool p ON p.pool = i.pool "
    "WHERE r.end_date IS NULL AND (i.state IN ('queued', 'running') OR (p.include_deferred AND "
    "(i.state = 'deferred' OR (i.state = 'scheduled' AND i.next_method IS NOT NULL)))) "
    "GROUP BY i.pool"
)
# One statement, one snapshot: without locks, for a turn locks these rows late. As a rule all is
# well, and a scheduler that starts need not wait for another.
_ANY_WRONG = Sql(
    "WITH active AS MATERIALIZED (SELECT dag_id, count(*) AS n FROM dag_run "
    "WHERE end_date IS NULL AND state = 'running' GROUP BY dag_id), "
    f"held AS MATERIALIZED (SELECT i.pool, sum(i.pool_slots) AS n {_HELD_BY}) "
    "SELECT 1 FROM dag_usage u LEFT JOIN active a ON a.dag_id = u.dag_id "
    "WHERE u.runs <> coalesce(a.n, 0) UNION ALL "
    "SELECT 1 FROM pool q LEFT JOIN held h ON h.pool = q.pool WHERE q.used <> coalesce(h.n, 0)"
)
# Rows are locked in the order that a turn locks them: limits of runs first, then pools.
_LOCK_USAGE = Sql("SELECT dag_id AS name, runs AS n FROM dag_usage ORDER BY dag_id {for_update}")
_RUNS = Sql(
    "SELECT dag_id AS name, count(*) AS n FROM dag_run "
    "WHERE end_date IS NULL AND state = 'running' GROUP BY dag_id"
)
_SET_USAGE = Sql(
    "UPDATE dag_usage AS u SET runs = r.n, shrinking = r.n > u.max_runs "
    "FROM {rows:r | name text, n integer} WHERE u.dag_id = r.name"
)
_LOCK_POOLS = Sql("SELECT pool AS name, used AS n FROM pool ORDER BY pool {for_update}")
_HELD = Sql(f"SELECT i.pool AS name, sum(i.pool_slots) AS n {_HELD_BY}")
_SET_POOLS = Sql(
    "UPDATE pool AS p SET used = r.n, version = p.version + 1, "
    "shrinking = p.slots >= 0 AND r.n > p.slots "
    "FROM {rows:r | name text, n integer} WHERE p.pool = r.name"
)


def recount(tx: Tx) -> dict[str, tuple[int, int]]:
    """Set every counter to what it should be; gives ``(was, is)`` of those that were wrong."""
    wrong: dict[str, tuple[int, int]] = {}
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


def _differing(noted: Mapping[str, int], counted: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {
        name: (was, counted.get(name, 0))
        for name, was in noted.items()
        if was != counted.get(name, 0)
    }
