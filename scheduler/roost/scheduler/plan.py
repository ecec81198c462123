"""A version of a DAG compiled for the scheduler's decisions."""

from __future__ import annotations

from collections.abc import Sequence

from roost.dag.model import EdgeError, SerializedDag, SerializedTask
from roost.dag.rules import RULES, Rule
from roost.dag.weights import effective_weights

__all__ = ["Plan"]


class Plan:
    """One version of a DAG compiled to integer indices; never changed, shared by its runs.

    Attributes:
        dag: what it was compiled from.
        tasks: by index, in the topological order of ``dag.tasks``: a child's index is larger.
        index: task_id to index.
        children: the distinct direct downstream indices of each index.
        parents: the distinct direct upstream indices of each index.
        parent_counts: how many those are.
        rules: the trigger rule of each index.
        weights: the effective priority weight of each index (S42-S44).
        empty: whether the operator has no body and completes undispatched (H27).
        dated: whether any task has a ``start_date`` or ``end_date`` of its own.
        past: the indices with ``depends_on_past`` or ``wait_for_downstream`` (S89).
    """

    __slots__ = (
        "children",
        "dag",
        "dated",
        "empty",
        "index",
        "parent_counts",
        "parents",
        "past",
        "rules",
        "tasks",
        "weights",
    )

    def __init__(self, dag: SerializedDag) -> None:
        self.dag = dag
        self.tasks: Sequence[SerializedTask] = dag.tasks
        self.index = {task.task_id: i for i, task in enumerate(dag.tasks)}
        if len(self.index) != len(dag.tasks):
            raise EdgeError(f"DAG {dag.dag_id!r} has two tasks of one task_id")
        self.weights = effective_weights(dag.tasks)  # checks the edges
        self.children: Sequence[Sequence[int]] = [
            sorted({self.index[child] for child in task.downstream}) for task in dag.tasks
        ]
        parents: list[list[int]] = [[] for _ in dag.tasks]
        for parent, children in enumerate(self.children):
            for child in children:
                parents[child].append(parent)
        self.parents: Sequence[Sequence[int]] = parents
        self.parent_counts = [len(above) for above in parents]
        self.rules: Sequence[Rule] = [RULES[task.trigger_rule] for task in dag.tasks]
        self.empty = [task.empty for task in dag.tasks]
        self.dated = any(
            task.start_date is not None or task.end_date is not None for task in dag.tasks
        )
        self.past = [
            i
            for i, task in enumerate(dag.tasks)
            if task.depends_on_past or task.wait_for_downstream
        ]

    @classmethod
    def compile(cls, dag: SerializedDag) -> Plan:
        """Compile a DAG.

        Raises:
            EdgeError: an edge names an unknown task, or the tasks are not in topological order.
        """
        return cls(dag)

    def __len__(self) -> int:
        return len(self.tasks)
