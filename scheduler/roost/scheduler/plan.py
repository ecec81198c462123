"""A version of a DAG compiled for the scheduler's decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from roost.dag.model import EdgeError, Length, SerializedDag, SerializedExpand, SerializedTask
from roost.dag.rules import RULES, Rule
from roost.dag.weights import effective_weights

__all__ = ["Plan", "Unit"]


class Unit:
    """What expands together: a mapped task alone, or all tasks of a mapped group (H17).

    Attributes:
        name: the task's id, or the group's.
        expand: the lengths that it expands to.
        members: the indices of its tasks.
        sources: the indices of the tasks that its lengths are read from.
        group: whether it is a group: what its tasks are to each other, their instances of one
            map_index are.
    """

    __slots__ = ("expand", "group", "members", "name", "sources")

    def __init__(
        self, name: str, expand: SerializedExpand, members: Sequence[int], *, group: bool
    ) -> None:
        self.name = name
        self.expand = expand
        self.members = members
        self.sources: Sequence[int] = []
        self.group = group


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
        decisive: whether the run fails with it: the leaves, as if there were no teardowns except
            those with ``on_failure_fail_dagrun`` (H18).
        setups: the setup tasks among the parents, of tasks whose rule asks about them (H18).
        mapped: the unit of each mapped index (H17).
        special: the indices in ``setups`` or ``mapped``.
    """

    __slots__ = (
        "children",
        "dag",
        "dated",
        "decisive",
        "empty",
        "index",
        "mapped",
        "parent_counts",
        "parents",
        "past",
        "rules",
        "setups",
        "special",
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
        self.decisive: Sequence[bool] = [
            _counts(task) and not any(_counts(self.tasks[child]) for child in children)
            for task, children in zip(dag.tasks, self.children, strict=True)
        ]
        self.setups = {
            i: setups
            for i, task in enumerate(dag.tasks)
            if task.trigger_rule == "all_done_setup_success"
            and (setups := [p for p in parents[i] if dag.tasks[p].setup])
        }
        self.mapped = {i: unit for unit in self._units() for i in unit.members}
        self.special = frozenset(self.setups.keys() | self.mapped.keys())

    def _units(self) -> Iterator[Unit]:
        groups: dict[str, list[int]] = {}
        for i, task in enumerate(self.tasks):
            if task.mapped_group is not None:
                groups.setdefault(task.mapped_group, []).append(i)
            elif task.expand is not None:
                yield self._with_sources(Unit(task.task_id, task.expand, [i], group=False))
        for name, members in groups.items():
            expand = self.dag.mapped_groups.get(name)
            if expand is None:
                raise EdgeError(f"DAG {self.dag.dag_id!r} has no mapped group {name!r}")
            yield self._with_sources(Unit(name, expand, members, group=True))

    def _with_sources(self, unit: Unit) -> Unit:
        names = {name for factor in unit.expand.factors for name in _sources(factor)}
        if not names <= self.index.keys():
            unknown = sorted(names - self.index.keys())[0]
            raise EdgeError(f"{unit.name!r} is mapped over the unknown task {unknown!r}")
        unit.sources = sorted(self.index[name] for name in names)
        if not set(unit.sources).isdisjoint(unit.members):
            raise EdgeError(f"{unit.name!r} is mapped over itself")
        return unit

    @classmethod
    def compile(cls, dag: SerializedDag) -> Plan:
        """Compile a DAG.

        Raises:
            EdgeError: an edge names an unknown task, or the tasks are not in topological order.
        """
        return cls(dag)

    def __len__(self) -> int:
        return len(self.tasks)


def _counts(task: SerializedTask) -> bool:
    return not task.teardown or task.on_failure_fail_dagrun


def _sources(length: Length) -> Iterator[str]:
    if length.kind == "xcom":
        yield length.task_id
    for part in length.parts:
        yield from _sources(part)
