"""The board: the state of one run in memory, and the decisions that follow from it.

It holds the state of each task instance and, for each, how its parents ended. A settled task
costs O(its children), whatever the size of the run, and a whole run O(its edges).

The board does no I/O and is never trusted for correctness: callers write what it decides as
guarded compare-and-set, and build a new board from the database when a write is refused. That a
board kept up to date decides what a fresh one would is a property test.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from roost.dag.rules import Verdict
from roost.models.states import FINISHED, State
from roost.scheduler.plan import Plan
from roost.scheduler.standing import Standing

__all__ = ["Board", "Decisions", "Plan"]

# Bound once: looking up an enum member costs more than the comparison it serves.
_NONE, _SCHEDULED = State.NONE, State.SCHEDULED
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
        expand: indices of mapped tasks that may run once the lengths they are mapped over have
            been looked up (H17). They are still ``none``.
    """

    run: list[int]
    skip: list[int]
    upstream_failed: list[int]
    expand: list[int]


class Board(Standing):
    """The states of one run's task instances, and what its trigger rules make of them.

    For a DAG without mapped tasks; :func:`roost.scheduler.mapped.open_board` gives the right one.

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

    __slots__ = ()

    def __init__(self, plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        super().__init__(plan)
        self._fill(instances)
        self.missing = [
            index
            for index, ti_id in enumerate(self.ti_ids)
            if ti_id == -1 and self.states[index] == _NONE
        ]
        for index in self.missing:
            self.settle(index, _REMOVED)

    def _fill(self, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        find = self.plan.index.get
        for ti_id, task_id, map_index, state in instances:
            index = find(task_id)
            if index is None or map_index != -1:
                self.unknown.append(ti_id)
                continue
            self.ti_ids[index] = ti_id
            self._index_of[ti_id] = index
            self.settle(index, state)

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

    def map_index(self, index: int) -> int:
        """The ``map_index`` of what stands at an index; -1 for a task that is not mapped."""
        return -1

    def decide(self) -> Decisions:
        """Examine what changed since the last call, and everything that follows from it.

        The decided states are on the board when this returns; the caller writes them. Parents
        are examined before children, so the result does not depend on the order of settling.
        """
        decisions = Decisions([], [], [], [])
        queue = self._queue
        if not queue:
            return decisions
        run, skip, upstream_failed, _ = decisions
        states, rules, held, marked = self.states, self.plan.rules, self._held, self._marked
        total, success, skipped = self._total, self._success, self._skipped
        special = self.plan.special
        failed, not_run, removed = self._failed, self._upstream_failed, self._removed
        pop = heapq.heappop
        while queue:
            i = pop(queue)
            marked[i] = 0
            if states[i] != _NONE:
                if i in special:
                    self._examine(i, decisions)
                continue
            verdict = rules[i](total[i] - removed[i], success[i], failed[i], not_run[i], skipped[i])
            if i in special:
                verdict = self._reconsider(i, verdict, decisions)
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

    def _reconsider(self, index: int, verdict: Verdict, decisions: Decisions) -> Verdict:
        """What becomes of a verdict that counts alone do not decide. WAIT: it is seen to."""
        return self.verdict(index) if verdict is _RUN else verdict

    def _examine(self, index: int, decisions: Decisions) -> None:
        """Look at a special index that is decided itself."""

    def _mark(self, index: int) -> None:
        if not self._marked[index]:
            self._marked[index] = 1
            heapq.heappush(self._queue, index)

    def _tally(self, index: int, state: str, step: int) -> None:
        """Count a parent's final state in (step 1) or out (step -1) of its children."""
        self.unfinished -= step
        if self._decisive[index] and state in _BAD:
            self._bad_leaves += step
        children = self.children[index]
        if not children:
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
