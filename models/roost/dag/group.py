"""TaskGroup: tasks that share a prefix and are linked as one (H18)."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from roost.dag import scope
from roost.dag.names import check_id
from roost.dag.node import Node
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.operator import BaseOperator

__all__ = ["TaskGroup"]


class TaskGroup(Node):
    """Tasks under a common prefix: ``with TaskGroup("load"): …`` makes ``load.<task_id>``.

    Args:
        group_id: name of the group, prefixed by the groups around it.
        prefix_group_id: False leaves the ids of its tasks as they are.
        dag: the DAG it belongs to; default: that of the open ``with`` block.
        parent_group: the group around it; default: that of the open ``with`` block.
        tooltip: what it is for.

    Raises:
        DagError: no DAG is known, or the id is taken.
    """

    def __init__(
        self,
        group_id: str,
        *,
        prefix_group_id: bool = True,
        dag: DAG | None = None,
        parent_group: TaskGroup | None = None,
        tooltip: str = "",
    ) -> None:
        parent = parent_group or (scope.current_group() if dag is None else None)
        owner = dag or (parent.dag if parent else scope.current_dag())
        if owner is None:
            raise DagError(f"TaskGroup {group_id!r} is in no DAG: use it inside `with DAG(…)`")
        self.dag: DAG = owner
        self.parent_group = parent
        self.prefix_group_id = prefix_group_id
        self.tooltip = tooltip
        check_id(group_id, "group_id")
        self.group_id = parent.child_id(group_id) if parent else group_id
        self.children: dict[str, BaseOperator | TaskGroup] = {}
        owner.add_group(self)
        if parent is not None:
            parent.children[self.group_id] = self

    def child_id(self, label: str) -> str:
        """The full id of a task or group that is called ``label`` in here."""
        if self.prefix_group_id:
            return f"{self.group_id}.{label}"
        return self.parent_group.child_id(label) if self.parent_group else label

    def tasks(self) -> list[BaseOperator]:
        """Every task in here, those of inner groups included."""
        found: list[BaseOperator] = []
        for child in self.children.values():
            found.extend(child.tasks() if isinstance(child, TaskGroup) else [child])
        return found

    @property
    def roots(self) -> Sequence[BaseOperator]:
        """Tasks without a parent in here."""
        tasks = self.tasks()
        inside = {task.task_id for task in tasks}
        return [task for task in tasks if inside.isdisjoint(task.upstream_task_ids)]

    @property
    def leaves(self) -> Sequence[BaseOperator]:
        """Tasks without a child in here."""
        tasks = self.tasks()
        inside = {task.task_id for task in tasks}
        return [task for task in tasks if inside.isdisjoint(task.downstream_task_ids)]

    def __enter__(self) -> TaskGroup:
        scope.enter_group(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scope.leave()

    def __repr__(self) -> str:
        return f"<TaskGroup {self.group_id}>"
