"""The board: the state of one run in memory, and the decisions that follow from it.

It holds the state of each task instance and, for each, how its parents ended. A settled task
costs O(its children), whatever the size of the run, and a whole run O(its edges).

The board does no I/O and is never trusted for correctness: callers write what it decides as
guarded compare-and-set, and build a new board from the database when a write is refused. That a
board kept up to date decides what a fresh one would is a property test.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from roost.dag.rules import Counts, Verdict
from roost.models.states import FINISHED, State
from roost.scheduler.plan import Plan

__all__ = ["Board", "Decisions", "Plan"]

# Bound once: looking up an enum member costs more than the comparison it serves.
_NONE, _SCHEDULED, _SUCCESS = State.NONE, State.SCHEDULED, State.SUCCESS
_FAILED, _UPSTREAM_FAILED = State.FAILED, State.UPSTREAM_FAILED
_SKIPPED, _REMOVED = State.SKIPPED, State.REMOVED
_WAIT, _RUN, _SKIP = Verdict.WAIT, Verdict.RUN, Verdict.SKIP
_BAD = frozenset({_FAILED, _UPSTREAM_FAILED})
_NOT_STARTED = frozenset({_NONE, _SCHEDULED})


class Decisions(NamedTuple):
    """What :meth:`Board.decide` settled, each list in topological order.

    Attributes:
        run: indices that are now ``scheduled`` on the board.
        skip: indices that are now ``skipped``.
        upstream_failed: indices that are now ``upstream_failed``.
    """

    run: list[int]
    skip: list[int]
    upstream_failed: list[int]


class Board:
    """The states of one run's task instances, and what its trigger rules make of them.

    Args:
        plan: the version of the DAG that the run executes.
        instances: (ti_id, task_id, map_index, state) of each instance; in any order.

    Attributes:
        tasks: the task of each index, with ``weights``, ``empty`` and ``children`` beside it: the
            plan's own sequences. Read only. Who has an index of a board asks these, not the plan.
        origin: for each index, that of its task in the plan.
        states: the state of each index. Read only; :meth:`settle` changes it.
        ti_ids: the task instance of each index, -1 where there is none. Read only.
        unfinished: how many instances are not in a final state.
        missing: indices without an instance. They count as ``removed`` on this board.
        unknown: ti_ids of instances whose task the plan does not hold.
    """

    __slots__ = (
        "_bad_leaves",
        "_columns",
        "_failed",
        "_held",
        "_index_of",
        "_marked",
        "_queue",
        "_removed",
        "_skipped",
        "_success",
        "_undecided",
        "_upstream_failed",
        "children",
        "empty",
        "missing",
        "origin",
        "plan",
        "states",
        "tasks",
        "ti_ids",
        "unfinished",
        "unknown",
        "weights",
    )

    def __init__(self, plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        size = len(plan)
        self.plan = plan
        self.tasks, self.weights, self.empty = plan.tasks, plan.weights, plan.empty
        self.children = plan.children
        self.origin: Sequence[int] = range(size)
        self.states: list[str] = [_NONE] * size
        self.ti_ids = [-1] * size
        self.unknown: list[int] = []
        self._index_of: dict[int, int] = {}
        self.unfinished = size
        self._undecided = size
        self._bad_leaves = 0
        self._held: frozenset[int] = frozenset()
        # How the parents of each index ended; `_failed` includes `_upstream_failed`.
        self._success = [0] * size
        self._failed = [0] * size
        self._upstream_failed = [0] * size
        self._skipped = [0] * size
        self._removed = [0] * size
        self._columns: dict[str, list[int]] = {
            _SUCCESS: self._success,
            _FAILED: self._failed,
            _UPSTREAM_FAILED: self._failed,
            _SKIPPED: self._skipped,
            _REMOVED: self._removed,
        }
        # Indices to examine, each at most once: a heap, so parents come before their children.
        # At first all of them: whatever waits may be due.
        self._queue = list(range(size))
        self._marked = bytearray(b"\1" * size)
        for ti_id, task_id, map_index, state in instances:
            index = plan.index.get(task_id)
            if index is None or map_index != -1:
                self.unknown.append(ti_id)
                continue
            self.ti_ids[index] = ti_id
            self._index_of[ti_id] = index
            self.settle(index, state)
        self.missing = [index for index, ti_id in enumerate(self.ti_ids) if ti_id == -1]
        for index in self.missing:
            self.settle(index, _REMOVED)

    def index_of(self, ti_id: int) -> int | None:
        """The index of a task instance, None if it is not on this board."""
        return self._index_of.get(ti_id)

    def settle(self, index: int, state: str | None) -> None:
        """Record a state, from and to any other, and mark what it concerns for examination.

        Args:
            state: a :class:`State` or its text; None means ``none``.
        """
        new = _NONE if state is None else state
        old = self.states[index]
        if new == old:
            return
        self.states[index] = new
        if old in FINISHED:
            self._tally(index, old, -1)
        elif old == _NONE:
            self._undecided -= 1
        if new in FINISHED:
            self._tally(index, new, 1)
        elif new == _NONE:
            self._undecided += 1
            self._mark(index)

    def force_skip(self, indices: Iterable[int]) -> list[int]:
        """Skip directly, whatever the trigger rule: what a branch did not follow (S70-S72).

        Returns those that had not been handed over (``none`` or ``scheduled``) and now are
        ``skipped``; anything further on is left alone (H28).
        """
        skipped = []
        for index in indices:
            if self.states[index] in _NOT_STARTED:
                self.settle(index, _SKIPPED)
                skipped.append(index)
        return skipped

    def set_held(self, indices: Iterable[int]) -> None:
        """Replace the set of indices that may not run because of previous runs (S89).

        A held task is still skipped or upstream_failed by its rule; it only does not run. Those
        that are released are examined by the next :meth:`decide`.
        """
        held = frozenset(indices)
        for index in self._held - held:
            self._mark(index)
        self._held = held

    def decide(self) -> Decisions:
        """Examine what changed since the last call, and everything that follows from it.

        The decided states are on the board when this returns; the caller writes them. Parents
        are examined before children, so the result does not depend on the order of settling.
        """
        decisions = Decisions([], [], [])
        queue = self._queue
        if not queue:
            return decisions
        run, skip, upstream_failed = decisions
        states, rules, held, marked = self.states, self.plan.rules, self._held, self._marked
        total, success, skipped = self.plan.parent_counts, self._success, self._skipped
        failed, not_run, removed = self._failed, self._upstream_failed, self._removed
        pop = heapq.heappop
        while queue:
            i = pop(queue)
            marked[i] = 0
            if states[i] != _NONE:
                continue
            verdict = rules[i](total[i] - removed[i], success[i], failed[i], not_run[i], skipped[i])
            if verdict is _WAIT or (verdict is _RUN and i in held):
                continue
            self._undecided -= 1
            if verdict is _RUN:
                states[i] = _SCHEDULED
                run.append(i)
            elif verdict is _SKIP:
                states[i] = _SKIPPED
                skip.append(i)
                self._tally(i, _SKIPPED, 1)
            else:
                states[i] = _UPSTREAM_FAILED
                upstream_failed.append(i)
                self._tally(i, _UPSTREAM_FAILED, 1)
        return decisions

    def outcome(self) -> Literal["success", "failed"] | None:
        """The run's final state, None while anything is unfinished.

        Leaf tasks decide: the run failed if one of them is failed or upstream_failed.
        """
        if self.unfinished:
            return None
        return "failed" if self._bad_leaves else "success"

    def deadlocked(self) -> bool:
        """Whether the run can never go on: nothing live, to be examined or held (H10)."""
        return (
            self.unfinished > 0
            and self._undecided == self.unfinished
            and not self._queue
            and not any(self.states[index] == _NONE for index in self._held)
        )

    def counts(self, index: int) -> Counts:
        """How the direct parents of a task ended, as its trigger rule sees it."""
        return Counts(
            total=self.plan.parent_counts[index],
            success=self._success[index],
            failed=self._failed[index] - self._upstream_failed[index],
            upstream_failed=self._upstream_failed[index],
            skipped=self._skipped[index],
            removed=self._removed[index],
        )

    def verdict(self, index: int) -> Verdict:
        """What the trigger rule says at this moment, whatever the state of the task."""
        return self.plan.rules[index](
            self.plan.parent_counts[index] - self._removed[index],
            self._success[index],
            self._failed[index],
            self._upstream_failed[index],
            self._skipped[index],
        )

    def held(self, index: int) -> bool:
        """Whether only previous runs keep this task from running (S89)."""
        return index in self._held and self.states[index] == _NONE and self.verdict(index) is _RUN

    def blocked_upstreams(self, index: int) -> list[int]:
        """The unfinished direct parents for which an undecided task waits; else nothing."""
        if self.states[index] != _NONE or self.verdict(index) is not _WAIT:
            return []
        return [p for p in self.plan.parents[index] if self.states[p] not in FINISHED]

    def _mark(self, index: int) -> None:
        if not self._marked[index]:
            self._marked[index] = 1
            heapq.heappush(self._queue, index)

    def _tally(self, index: int, state: str, step: int) -> None:
        """Count a parent's final state in (step 1) or out (step -1) of its children."""
        self.unfinished -= step
        children = self.children[index]
        if not children:
            if state in _BAD:
                self._bad_leaves += step
            return
        if state == _UPSTREAM_FAILED:
            for child in children:
                self._upstream_failed[child] += step
        column, marked, queue = self._columns[state], self._marked, self._queue
        push = heapq.heappush
        for child in children:
            column[child] += step
            if not marked[child]:
                marked[child] = 1
                push(queue, child)
