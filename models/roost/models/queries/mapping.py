"""How many values the tasks of a run left for others to be mapped over (H17)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = ["Left", "lengths"]


class Left(NamedTuple):
    """What all instances of a task left under a key.

    Attributes:
        values: how many of them left one.
        length: the greatest length among these; None: none of them has one.
    """

    values: int
    length: int | None


_LENGTHS = Sql(
    "SELECT r.task_id, r.key, count(x.ti_id) AS found, max(x.length) AS length "
    "FROM {rows:r | task_id text, key text} "
    "JOIN task_instance t ON t.dag_run_id = :run_key AND t.task_id = r.task_id "
    "AND t.state <> 'removed' "
    "JOIN xcom x ON x.ti_id = t.id AND x.key = r.key GROUP BY r.task_id, r.key"
)


def lengths(tx: Tx, run_key: int, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Left]:
    """What was left, by ``(task_id, key)``; absent: nothing."""
    rows = [{"task_id": task_id, "key": key} for task_id, key in wanted]
    if not rows:
        return {}
    found = tx.all(_LENGTHS, run_key=run_key, rows=tx.rows(rows))
    return {(row.task_id, row.key): Left(row.found, row.length) for row in found}
