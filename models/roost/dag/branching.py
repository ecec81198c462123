"""Which children a branch skips (S70-S72)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from roost.dag import graph
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["branch_skips"]


def branch_skips(task: BaseOperator, chosen: str | Iterable[str] | None) -> list[str]:
    """The direct children of ``task`` to skip when it follows ``chosen``.

    A child that is also downstream of a followed one is a join and stays (S72).

    Args:
        task: the branching task.
        chosen: task id or group id directly downstream, several, or None to follow none.

    Raises:
        DagError: an id is not directly downstream (S71), or is no string.
    """
    followed: set[str] = set()
    for name in _names(task, chosen):
        group = task.dag.group_dict.get(name)
        ids = [root.task_id for root in group.roots] if group else [name]
        missing = [task_id for task_id in ids if task_id not in task.downstream]
        if missing:
            raise DagError(
                f"branch {task.task_id!r} chose {missing[0]!r}, which is not directly downstream "
                f"of it; its children: {', '.join(task.downstream) or 'none'}"
            )
        followed.update(ids)
    edges = {task_id: other.downstream for task_id, other in task.dag.task_dict.items()}
    kept = graph.reachable(edges, followed)
    return [task_id for task_id in task.downstream if task_id not in kept]


def _names(task: BaseOperator, chosen: object) -> list[str]:
    if chosen is None:
        return []
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str)
    names: list[str] = []
    for name in chosen if several else [chosen]:  # type: ignore[attr-defined]
        if not isinstance(name, str):
            raise DagError(
                f"branch {task.task_id!r} must choose task ids, a list of them or None, "
                f"not {name!r}"
            )
        names.append(name)
    return names
