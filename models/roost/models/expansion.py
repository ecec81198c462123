"""Replaces the task instance of a mapped task by as many as it has values (H17).

Like :mod:`roost.models.transitions` it writes rows in state ``none``; it moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roost.models.engine import Sql, Tx
from roost.models.states import State

__all__ = ["add_instances", "expand"]

_ROWS = "{rows:r | id bigint, first integer, length integer}"
_BECOME_FIRST = Sql(
    "UPDATE task_instance SET map_index = 0 WHERE id IN (SELECT r.id FROM {rows:r | id bigint}) "
    f"AND map_index = -1 AND state = '{State.NONE}' RETURNING id, task_id"
)
_ADD = Sql(
    "WITH RECURSIVE place(k) AS "
    "(SELECT 0 UNION ALL SELECT k + 1 FROM place WHERE k + 1 < :longest) "
    "INSERT INTO task_instance "
    "(dag_run_id, task_id, map_index, state, pool, pool_slots, queue, priority_weight) "
    f"SELECT t.dag_run_id, t.task_id, place.k, '{State.NONE}', t.pool, t.pool_slots, t.queue, "
    f"t.priority_weight FROM {_ROWS} JOIN task_instance t ON t.id = r.id "
    "JOIN place ON place.k >= r.first AND place.k < r.length "
    "WHERE {true} ON CONFLICT DO NOTHING RETURNING id, task_id, map_index"
)


def expand(tx: Tx, ti_ids: Sequence[int], length: int) -> dict[str, list[tuple[int, int]]]:
    """Turn task instances that are not expanded into ``length`` of each, all in state none.

    Args:
        tx: the transaction.
        ti_ids: of one run, ``map_index`` -1; each becomes the one of ``map_index`` 0.
        length: at least 1.

    Returns:
        ``(map_index, ti_id)`` by task_id, in order. Of a task instance that others have moved or
        expanded meanwhile nothing is there.
    """
    first = tx.all(_BECOME_FIRST, rows=tx.rows([{"id": ti_id} for ti_id in ti_ids]))
    found = {row.task_id: [(0, int(row.id))] for row in first}
    added = add_instances(tx, {row.id: 1 for row in first}, length)
    for task_id, more in added.items():
        found[task_id] += more
    return found


def add_instances(
    tx: Tx, first: Mapping[int, int], length: int
) -> dict[str, list[tuple[int, int]]]:
    """Add task instances like given ones.

    Args:
        tx: the transaction.
        first: the first ``map_index`` to add, by the id of an instance of the same task.
        length: the ``map_index`` to stop at; those that exist are left alone.

    Returns:
        ``(map_index, ti_id)`` of the added ones by task_id, in order.
    """
    rows = [{"id": ti_id, "first": start, "length": length} for ti_id, start in first.items()]
    found: dict[str, list[tuple[int, int]]] = {}
    if rows:
        for row in tx.all(_ADD, rows=tx.rows(rows), longest=length):
            found.setdefault(row.task_id, []).append((row.map_index, row.id))
    return {task_id: sorted(added) for task_id, added in found.items()}
