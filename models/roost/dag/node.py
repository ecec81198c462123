"""Dependencies between the things of a DAG: ``>>``, ``<<``, ``chain``, ``cross_downstream``.

A :class:`Node` is anything that stands in a dependency: a task, a group of tasks, the result of
a ``@task`` call. Each says which tasks are its roots and which its leaves; an edge between two
nodes is an edge from every leaf of the one to every root of the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["Label", "Node", "Nodes", "chain", "chain_linear", "cross_downstream"]

_N = TypeVar("_N")


class Node(ABC):
    """Something that ``>>`` and ``<<`` connect (S31-S34)."""

    @property
    @abstractmethod
    def roots(self) -> Sequence[BaseOperator]:
        """The tasks that wait for whatever is upstream of this node."""

    @property
    @abstractmethod
    def leaves(self) -> Sequence[BaseOperator]:
        """The tasks that whatever is downstream of this node waits for."""

    def set_downstream(self, other: Nodes) -> None:
        """Let ``other``, one node or several, wait for this one."""
        for node in as_nodes(other):
            _connect(self, node)

    def set_upstream(self, other: Nodes) -> None:
        """Let this node wait for ``other``, one node or several."""
        for node in as_nodes(other):
            _connect(node, self)

    # Each operator returns its right-hand side, so that a >> b >> c reads left to right (S32).
    def __rshift__(self, other: _N) -> _N:
        self.set_downstream(other)  # type: ignore[arg-type]  # as_nodes refuses what is no node
        return other

    def __lshift__(self, other: _N) -> _N:
        self.set_upstream(other)  # type: ignore[arg-type]
        return other

    def __rrshift__(self, other: Iterable[Node]) -> Node:
        """``[a, b] >> self``."""
        self.set_upstream(other)
        return self

    def __rlshift__(self, other: Iterable[Node]) -> Node:
        """``[a, b] << self``."""
        self.set_downstream(other)
        return self


class Label(Node):
    """A word on an edge: ``a >> Label("large") >> b`` links a to b. Kept for the reader only."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._above: list[Node] = []
        self._below: list[Node] = []

    @property
    def roots(self) -> Sequence[BaseOperator]:
        """It holds no task."""
        return ()

    @property
    def leaves(self) -> Sequence[BaseOperator]:
        """It holds no task."""
        return ()

    def follow(self, up: Node) -> None:
        """``up >> label``: link it to what the label points at, now or later."""
        self._above.append(up)
        for down in self._below:
            _connect(up, down)

    def lead(self, down: Node) -> None:
        """``label >> down``."""
        self._below.append(down)
        for up in self._above:
            _connect(up, down)


Nodes: TypeAlias = Node | Iterable[Node]


def as_nodes(value: object) -> list[Node]:
    """``value`` as a flat list of nodes.

    Raises:
        TypeError: it is neither a node nor an iterable of nodes.
    """
    if isinstance(value, Node):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return [node for item in value for node in as_nodes(item)]
    raise TypeError(f"a dependency needs tasks or lists of tasks, not {value!r}")


def _connect(up: Node, down: Node) -> None:
    if isinstance(down, Label):
        down.follow(up)
        return
    if isinstance(up, Label):
        up.lead(down)
        return
    for leaf in up.leaves:
        for root in down.roots:
            _link(leaf, root)


def _link(up: BaseOperator, down: BaseOperator) -> None:
    """One edge. An unassigned task joins the DAG of the other (S8, S9)."""
    if not up.has_dag() and not down.has_dag():
        raise DagError(
            f"tasks {up.task_id!r} and {down.task_id!r} are in no DAG yet: give one of them a "
            "DAG before linking them"
        )
    if not up.has_dag():
        up.dag = down.dag
    elif not down.has_dag():
        down.dag = up.dag
    elif up.dag is not down.dag:
        raise DagError(
            f"task {up.task_id!r} is in DAG {up.dag.dag_id!r} and task {down.task_id!r} in DAG "
            f"{down.dag.dag_id!r}: only tasks of one DAG can be linked"
        )
    up.link(down)


def cross_downstream(from_tasks: Nodes, to_tasks: Nodes) -> None:
    """Make every task of ``from_tasks`` upstream of every task of ``to_tasks`` (S35)."""
    downs = as_nodes(to_tasks)
    for up in as_nodes(from_tasks):
        up.set_downstream(downs)


def chain(*tasks: Nodes) -> None:
    """Link the arguments one after the other (S36).

    ``chain(a, [b, c], [d, e], f)`` links a to b and c, b to d, c to e, d and e to f. One list as
    the only argument is chained member by member: ``chain([a, b, c])`` is ``a >> b >> c``.

    Raises:
        DagError: two neighbouring lists differ in length.
        TypeError: an argument is neither a task nor a list of tasks.
    """
    links: list[Node | list[Node]] = [_chain_link(item) for item in tasks]
    if len(links) == 1 and isinstance(links[0], list):
        links = list(links[0])
    for position, (up, down) in enumerate(pairwise(links), start=1):
        if not isinstance(up, list) or not isinstance(down, list):
            for node in as_nodes(up):
                node.set_downstream(down)
            continue
        if len(up) != len(down):
            raise DagError(
                f"chain: lists {position} and {position + 1} hold {len(up)} and {len(down)} tasks; "
                "neighbouring lists must have one length (use cross_downstream to link all to all)"
            )
        for first, second in zip(up, down, strict=True):
            first.set_downstream(second)


def chain_linear(*tasks: Nodes) -> None:
    """Link the arguments one after the other; of two lists each task of one to each of the next."""
    for up, down in pairwise([_chain_link(item) for item in tasks]):
        cross_downstream(up, down)


def _chain_link(item: Nodes) -> Node | list[Node]:
    return item if isinstance(item, Node) else as_nodes(item)
