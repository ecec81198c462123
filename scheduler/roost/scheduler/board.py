"""The state of one run in memory: what may start, what is decided without running."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from roost.dag.model import SerializedDag, SerializedTask
from roost.dag.rules import Counts, Verdict

__all__ = ["Board", "Decisions", "Plan"]


class Plan:
    """One version of a DAG compiled to integer indices; immutable, shared by its runs.

    Indices follow ``SerializedDag.tasks`` (topological order).
    """

    dag: SerializedDag
    tasks: Sequence[SerializedTask]
    task_ids: Sequence[str]
    index: dict[str, int]
    children: Sequence[Sequence[int]]
    parents: Sequence[Sequence[int]]
    weights: Sequence[int]  # effective priority weights (S42-S44)
    empty: Sequence[bool]  # H27
    past: Sequence[int]  # indices with depends_on_past or wait_for_downstream

    @classmethod
    def compile(cls, dag: SerializedDag) -> Plan:
        """Raises EdgeError."""
        raise NotImplementedError


class Decisions(NamedTuple):
    """What `Board.decide` settled, in the order in which it was decided."""

    run: list[int]  # now "scheduled" on the board
    skip: list[int]  # now "skipped"
    upstream_failed: list[int]  # now "upstream_failed"


class Board:
    """The states of one run's task instances."""

    plan: Plan
    states: list[str | None]  # by index; read only
    ti_ids: list[int]  # by index; read only
    unfinished: int  # instances not in a final state
    missing: list[int]  # indices of the plan without an instance; neutral until they have one
    unknown: list[int]  # ti_ids whose task the plan does not hold

    def __init__(self, plan: Plan, instances: Iterable[tuple[int, str, int, str | None]]) -> None:
        """instances: (ti_id, task_id, map_index, state)."""
        raise NotImplementedError

    def index_of(self, ti_id: int) -> int | None:
        """The index of a task instance."""
        raise NotImplementedError

    def settle(self, index: int, state: str | None) -> None:
        """Record a state that was written to the database."""
        raise NotImplementedError

    def force_skip(self, indices: Iterable[int]) -> list[int]:
        """Skip directly (branches); returns those that were waiting and now are skipped (H28)."""
        raise NotImplementedError

    def set_held(self, indices: Iterable[int]) -> None:
        """Replace the set of indices that the past holds back; released ones are re-examined."""
        raise NotImplementedError

    def decide(self) -> Decisions:
        """Examine what changed. The board already holds the decided states afterwards."""
        raise NotImplementedError

    def outcome(self) -> Literal["success", "failed"] | None:
        """The run's final state, None while anything is unfinished."""
        raise NotImplementedError

    def deadlocked(self) -> bool:
        """Unfinished, nothing live, nothing to examine, nothing held (H10)."""
        raise NotImplementedError

    def counts(self, index: int) -> Counts:
        """How the parents of a task ended."""
        raise NotImplementedError

    def verdict(self, index: int) -> Verdict:
        """What the trigger rule says now, whatever the state."""
        raise NotImplementedError

    def blocked_upstreams(self, index: int) -> list[int]:
        """The unfinished parents that a waiting task waits for."""
        raise NotImplementedError
