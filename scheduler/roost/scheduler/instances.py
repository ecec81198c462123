"""What mapped tasks add to a board: indices behind those of the plan, and buckets of them (H17)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from roost.models.states import State
from roost.scheduler.board import Board
from roost.scheduler.plan import Plan

__all__ = ["GrowingBoard", "Inner", "Instances", "add"]

Inner = tuple[int, int, int, int, int, int]
"""Parents and how they ended: total, success, failed, upstream_failed, skipped, removed."""


class Instances:
    """What stands for one mapped task: the indices, by ``map_index``, and who is undecided."""

    __slots__ = ("below", "of", "undecided", "unfinished")

    def __init__(self, of: dict[int, int]) -> None:
        self.of = of
        self.below: list[int] = []  # children in the same group, expanded too
        self.unfinished = len(of)
        self.undecided: dict[Inner, set[int]] = {}

    def put(self, index: int, inner: Inner) -> None:
        self.undecided.setdefault(inner, set()).add(index)

    def take(self, index: int, inner: Inner) -> None:
        bucket = self.undecided[inner]
        bucket.discard(index)
        if not bucket:
            del self.undecided[inner]


class GrowingBoard(Board):
    """A board to which indices can be added."""

    __slots__ = ("_children", "_map_index", "_shared", "_size")

    def __init__(self, plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        self._size = len(plan)
        self._map_index: list[int] = []
        self._shared: tuple[list[Any], ...] = ()
        self._children: list[Sequence[int]] = []  # `children`, once it is this board's own
        super().__init__(plan, instances)

    def map_index(self, index: int) -> int:
        """Which instance of its task an index is; -1: the only one."""
        return -1 if index < self._size else self._map_index[index - self._size]

    def _append(self, shell: int, map_index: int, ti_id: int) -> int:
        """Add an instance of a task; gives its index."""
        index = len(self.states)
        for column in self._shared or self._unshare():
            column.append(column[shell])
        for counts in self._counted():
            counts.append(0)
        self._map_index.append(map_index)
        self.states.append(State.NONE)
        self.ti_ids.append(ti_id)
        self._index_of[ti_id] = index
        return index

    def _unshare(self) -> tuple[list[Any], ...]:
        """Take copies of what is the plan's, to append to them."""
        self.tasks = tasks = list(self.tasks)
        self.weights = weights = list(self.weights)
        self.empty = empty = list(self.empty)
        self.children = self._children = list(self.children)
        self.origin = origin = list(self.origin)
        self._decisive = decisive = list(self._decisive)
        self._total = list(self._total)
        self._shared = (tasks, weights, empty, self._children, origin, decisive)
        return self._shared

    def _counted(self) -> tuple[list[int], ...]:
        return (
            self._total,
            self._success,
            self._failed,
            self._upstream_failed,
            self._skipped,
            self._removed,
        )


def add(a: Inner, b: Inner) -> Inner:
    """Counts of two sets of parents together."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5])
