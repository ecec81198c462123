"""TaskGroup: tasks that share a prefix and are linked as one (H18)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from roost.dag import scope
from roost.dag.names import check_id
from roost.dag.node import Node
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.expansion import Expansion
    from roost.dag.operator import BaseOperator

__all__ = ["TaskGroup"]


class TaskGroup(Node):
    """Tasks under a common prefix: ``with TaskGroup("load"): …`` makes ``load.<task_id>``.

    Args:
        group_id: name of the group, prefixed by the groups around it.
        prefix_group_id: False leaves the ids of its tasks as they are.
        dag: the DAG it belongs to; default: that of the open ``with`` block.
        parent_group: the group around it; default: that of the open ``with`` block.
        default_args: arguments of every task in it that it does not give itself, before those of
            the groups around it and of the DAG.
        tooltip: what it is for.
        add_suffix_on_collision: take ``<group_id>__1`` and so on when the id is taken.
        expansion: what the group is mapped over; see ``@task_group`` (H17).

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
        default_args: Mapping[str, Any] | None = None,
        tooltip: str = "",
        add_suffix_on_collision: bool = False,
        expansion: Expansion | None = None,
    ) -> None:
        parent = parent_group or (scope.current_group() if dag is None else None)
        owner = dag or (parent.dag if parent else scope.current_dag())
        if owner is None:
            raise DagError(f"TaskGroup {group_id!r} is in no DAG: use it inside `with DAG(…)`")
        self.dag: DAG = owner
        self.parent_group = parent
        self.prefix_group_id = prefix_group_id
        self.default_args: dict[str, Any] = dict(default_args or {})
        self.tooltip = tooltip
        self.expansion = expansion
        check_id(group_id, "group_id")
        full = parent.child_id(group_id) if parent else group_id
        self.group_id = owner.free_id(full) if add_suffix_on_collision else full
        self.children: dict[str, BaseOperator | TaskGroup] = {}
        if expansion is not None:
            self._check_expansion(expansion)
        owner.add_group(self)
        if parent is not None:
            parent.children[self.group_id] = self

    def _check_expansion(self, expansion: Expansion) -> None:
        of = f"group {self.group_id!r}"
        if self.parent_group is not None and self.parent_group.mapped_group is not None:
            raise DagError(
                f"{of} cannot be mapped inside the mapped group "
                f"{self.parent_group.mapped_group.group_id!r}: map one of the two"
            )
        expansion.check_length(of)

    def child_id(self, label: str) -> str:
        """The full id of a task or group that is called ``label`` in here."""
        if self.prefix_group_id:
            return f"{self.group_id}.{label}"
        return self.parent_group.child_id(label) if self.parent_group else label

    def lineage(self) -> Iterator[TaskGroup]:
        """This group and those around it, from the inside out."""
        group: TaskGroup | None = self
        while group is not None:
            yield group
            group = group.parent_group

    @property
    def mapped_group(self) -> TaskGroup | None:
        """This group or the one around it that is mapped."""
        return next((group for group in self.lineage() if group.expansion is not None), None)

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
        """Tasks without a child in here, teardowns apart: nothing waits for those (H18)."""
        tasks = self.tasks()
        inside = {task.task_id for task in tasks}
        found: dict[str, BaseOperator] = {}
        for task in tasks:
            if inside.isdisjoint(task.downstream_task_ids):
                ends = _before_teardowns(task, inside) if task.is_teardown else [task]
                found.update((end.task_id, end) for end in ends)
        return list(found.values())

    def link_expansion(self) -> None:
        """Let the group wait for the results that it is mapped over."""
        for argument in self.expansion.references() if self.expansion is not None else ():
            argument.set_downstream(self)

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


def _before_teardowns(teardown: BaseOperator, inside: set[str]) -> Iterator[BaseOperator]:
    """The last tasks of a group before a teardown that ends it, its setups apart."""
    seen = {teardown.task_id}
    stack = [teardown]
    while stack:
        for task in stack.pop().upstream_list:
            if task.task_id not in inside or task.task_id in seen:
                continue
            seen.add(task.task_id)
            if task.is_teardown:
                stack.append(task)
            elif not task.is_setup:
                yield task
