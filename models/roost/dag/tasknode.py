"""A task as a node of its DAG: the DAG and groups it is in, its edges, setups and teardowns."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self, cast

from roost.dag import brackets
from roost.dag.definition import DAG
from roost.dag.model import TriggerRule
from roost.dag.node import Node, Nodes, as_nodes
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.group import TaskGroup
    from roost.dag.operator import BaseOperator

__all__ = ["TaskNode"]

_TEARDOWN_RULE: Final = "all_done_setup_success"


class TaskNode(Node):
    """What :class:`roost.dag.operator.BaseOperator` is in its DAG; its only subclass."""

    #: True for a task that runs as several instances (H17).
    is_mapped: ClassVar[bool] = False

    task_id: str
    label: str
    task_group: TaskGroup | None
    trigger_rule: TriggerRule

    def __init__(self) -> None:
        # Insertion-ordered sets of task ids.
        self.downstream: dict[str, None] = {}
        self.upstream: dict[str, None] = {}
        self.is_setup = False
        self.is_teardown = False
        self.on_failure_fail_dagrun = False
        self._dag: DAG | None = None

    @property
    def _me(self) -> BaseOperator:
        return cast("BaseOperator", self)

    # -- the DAG it is in

    def has_dag(self) -> bool:
        """Whether it was put into a DAG."""
        return self._dag is not None

    @property
    def dag(self) -> DAG:
        """The DAG it is in. Assigned once (S8).

        Raises:
            DagError: it is in none, or is to be moved to another.
            TypeError: what is assigned is not a DAG.
        """
        if self._dag is None:
            raise DagError(f"task {self.task_id!r} is in no DAG: make it inside `with DAG(…)`")
        return self._dag

    @dag.setter
    def dag(self, dag: DAG) -> None:
        if not isinstance(dag, DAG):
            raise TypeError(f"task {self.task_id!r}: dag must be a DAG, not {dag!r}")
        if self._dag is dag:
            return
        if self._dag is not None:
            raise DagError(
                f"task {self.task_id!r}: the DAG of a task can not be changed "
                f"(is {self._dag.dag_id!r}, asked for {dag.dag_id!r})"
            )
        self._dag = dag
        dag.add_task(self._me)

    @property
    def dag_id(self) -> str:
        """Id of the DAG it is in; empty when it is in none."""
        return self._dag.dag_id if self._dag is not None else ""

    # -- its edges

    @property
    def roots(self) -> Sequence[BaseOperator]:
        """Itself."""
        return (self._me,)

    @property
    def leaves(self) -> Sequence[BaseOperator]:
        """Itself."""
        return (self._me,)

    @property
    def upstream_task_ids(self) -> set[str]:
        """Ids of its direct parents."""
        return set(self.upstream)

    @property
    def downstream_task_ids(self) -> set[str]:
        """Ids of its direct children."""
        return set(self.downstream)

    @property
    def upstream_list(self) -> list[BaseOperator]:
        """Its direct parents."""
        return [self.dag.get_task(task_id) for task_id in self.upstream]

    @property
    def downstream_list(self) -> list[BaseOperator]:
        """Its direct children."""
        return [self.dag.get_task(task_id) for task_id in self.downstream]

    # -- setup and teardown (H18)

    def as_setup(self) -> Self:
        """Make this a setup: what it is for is undone by a teardown."""
        self.is_setup = True
        return self

    def as_teardown(
        self, *, setups: Nodes | None = None, on_failure_fail_dagrun: bool = False
    ) -> Self:
        """Make this a teardown: it runs when all before it is done and its setups succeeded.

        What is downstream of its group does not wait for it, and its failure does not fail the
        run unless that is asked for.

        Args:
            setups: one or several tasks that become its setups, upstream of it.
            on_failure_fail_dagrun: whether the run fails when it does.

        Raises:
            DagError: it has a trigger rule of its own.
        """
        if self.trigger_rule not in ("all_success", _TEARDOWN_RULE):
            raise DagError(
                f"task {self.task_id!r}: a teardown has the trigger rule {_TEARDOWN_RULE!r}, "
                f"not {self.trigger_rule!r}; leave trigger_rule out"
            )
        self.is_teardown = True
        self.trigger_rule = _TEARDOWN_RULE
        self.on_failure_fail_dagrun = on_failure_fail_dagrun
        for node in as_nodes(setups) if setups is not None else ():
            for task in node.leaves:
                task.as_setup()
            node.set_downstream(self)
        return self

    def __enter__(self) -> Self:
        """Tasks made inside stand after the setups and before the teardowns."""
        brackets.open_bracket(self._me)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        brackets.close_bracket(self._me)

    def link(self, child: BaseOperator) -> None:
        """Record one edge; a repeated one changes nothing."""
        self.downstream[child.task_id] = None
        child.upstream[self.task_id] = None

    @property
    def mapped_group(self) -> TaskGroup | None:
        """The mapped group that it is in (H17)."""
        return self.task_group.mapped_group if self.task_group is not None else None

    def stand_for(self, task: BaseOperator) -> None:
        """Be one instance of ``task``, at its place in its DAG."""
        self.task_id, self.label = task.task_id, task.label
        self.task_group = task.task_group
        self.downstream, self.upstream = task.downstream, task.upstream
        self.is_setup, self.is_teardown = task.is_setup, task.is_teardown
        self._dag = task.dag
