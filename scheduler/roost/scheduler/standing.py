"""How a run stands: what its board knows, and the questions that can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from roost.dag.rules import Counts, Verdict, evaluate
from roost.models.states import FINISHED, State
from roost.scheduler.plan import Plan

__all__ = ["Standing"]

# Bound once: looking up an enum member costs more than the comparison it serves.
_NONE, _SUCCESS, _SKIPPED, _REMOVED = State.NONE, State.SUCCESS, State.SKIPPED, State.REMOVED
_WAIT, _RUN = Verdict.WAIT, Verdict.RUN


class Standing:
    """What :class:`roost.scheduler.board.Board` knows; it alone writes here.

    Attributes: see :class:`roost.scheduler.board.Board`.
    """

    __slots__ = (
        "_bad_leaves",
        "_columns",
        "_decisive",
        "_failed",
        "_held",
        "_index_of",
        "_marked",
        "_queue",
        "_removed",
        "_skipped",
        "_success",
        "_total",
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

    def __init__(self, plan: Plan) -> None:
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
        self._decisive = plan.decisive
        # How many parents each index has, and how they ended; `_failed` includes
        # `_upstream_failed`.
        self._total = plan.parent_counts
        self._success = [0] * size
        self._failed = [0] * size
        self._upstream_failed = [0] * size
        self._skipped = [0] * size
        self._removed = [0] * size
        self._columns: dict[str, list[int]] = {
            _SUCCESS: self._success,
            State.FAILED: self._failed,
            State.UPSTREAM_FAILED: self._failed,
            _SKIPPED: self._skipped,
            _REMOVED: self._removed,
        }
        # Indices to examine, each at most once: a heap, so parents come before their children.
        # At first all of them: whatever waits may be due.
        self._queue = list(range(size))
        self._marked = bytearray(b"\1" * size)

    def index_of(self, ti_id: int) -> int | None:
        """The index of a task instance, None if it is not on this board."""
        return self._index_of.get(ti_id)

    def outcome(self) -> Literal["success", "failed"] | None:
        """The run's final state, None while anything is unfinished.

        The run failed if a task that decides (``Plan.decisive``: the leaves, teardowns apart) is
        failed or upstream_failed.
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
        total, success, failed, not_run, skipped, removed = self._tallies(index)
        setups = self._setup_states(index)
        return Counts(
            total=total,
            success=success,
            failed=failed - not_run,
            upstream_failed=not_run,
            skipped=skipped,
            removed=removed,
            setups=len(setups),
            setup_success=setups.count(_SUCCESS),
            setup_skipped=setups.count(_SKIPPED),
        )

    def _tallies(self, index: int) -> tuple[int, int, int, int, int, int]:
        return (
            self._total[index],
            self._success[index],
            self._failed[index],
            self._upstream_failed[index],
            self._skipped[index],
            self._removed[index],
        )

    def verdict(self, index: int) -> Verdict:
        """What the trigger rule says at this moment, whatever the state of the task."""
        return evaluate(self.tasks[index].trigger_rule, self.counts(index))

    def parents_of(self, index: int) -> Sequence[int]:
        """The direct parents of an index."""
        return self.plan.parents[index]

    def instances(self, task: int) -> Sequence[int]:
        """The indices that stand for a task of the plan: itself, unless it has been expanded."""
        return (task,)

    def undecided(self, task: int) -> Sequence[int]:
        """Those of its instances about which nothing is decided."""
        return (task,) if self.states[task] == _NONE else ()

    def concerned(self, index: int, task: int) -> Sequence[int]:
        """The instances of a task that an instance means when it names that task (S70, H17)."""
        return self.instances(task)

    def expanded(self, task: int) -> bool:
        """Whether a mapped task of the plan has been replaced by its instances."""
        return False

    def map_index(self, index: int) -> int:
        """Which instance of its task an index is; -1: the only one."""
        return -1

    def held(self, index: int) -> bool:
        """Whether only previous runs keep this task from running (S89)."""
        return index in self._held and self.states[index] == _NONE and self.verdict(index) is _RUN

    def blocked_upstreams(self, index: int) -> list[int]:
        """The unfinished direct parents for which an undecided task waits; else nothing."""
        if self.states[index] != _NONE or self.verdict(index) is not _WAIT:
            return []
        return [p for p in self.parents_of(index) if self.states[p] not in FINISHED]

    def _setup_states(self, index: int) -> list[str]:
        """The states of the setup tasks that a teardown asks about; those removed left out."""
        if self.origin[index] not in self.plan.setups:
            return []
        found = [self.states[p] for p in self.parents_of(index) if self.tasks[p].setup]
        return [state for state in found if state != _REMOVED]
