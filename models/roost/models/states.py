"""States of task instances and runs, and the one table of moves between them.

A move is ``event -> (from-states, to)``. :mod:`roost.models.transitions` is the only code that
writes a state, and it writes only what this table allows.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "FINISHED",
    "IN_FLIGHT",
    "MOVES",
    "RUN_MOVES",
    "Event",
    "RunEvent",
    "RunState",
    "State",
]


class State(StrEnum):
    """State of a task instance (S25, S26). ``none``: created, nothing decided yet."""

    NONE = "none"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    UP_FOR_RETRY = "up_for_retry"
    DEFERRED = "deferred"
    REMOVED = "removed"


FINISHED = frozenset(
    {State.SUCCESS, State.FAILED, State.SKIPPED, State.UPSTREAM_FAILED, State.REMOVED}
)
"""States that a task instance leaves only by a user's clear."""

IN_FLIGHT = frozenset({State.QUEUED, State.RUNNING})
"""States with a live dispatch: each holds pool slots and one of the executor's slots."""


class Event(StrEnum):
    """What happens to a task instance."""

    SCHEDULE = "schedule"  # its trigger rule allows it, or its retry is due
    ENQUEUE = "enqueue"  # slots were free: handed to the executor with a new dispatch_id
    START = "start"  # a worker claimed the dispatch
    SUCCEED = "succeed"
    COMPLETE = "complete"  # an operator without a body (H27)
    FAIL = "fail"
    RETRY = "retry"
    END_SKIPPED = "end_skipped"  # the task skipped itself
    SKIP = "skip"  # its rule or a branch skips it (S75, S70, H28)
    UPSTREAM_FAIL = "upstream_fail"
    REFUSE = "refuse"  # it cannot be expanded: what it is mapped over has no length (H17)
    DEFER = "defer"
    START_DEFERRED = "start_deferred"  # its trigger is its first stage (D12)
    RESUME = "resume"
    LOSE = "lose"  # its worker died or was drained: dispatched anew, no try consumed (S11)
    CLEAR = "clear"  # a user wants it to run again
    MARK_SUCCESS = "mark_success"  # a user says so
    MARK_FAILED = "mark_failed"
    MARK_SKIPPED = "mark_skipped"  # its run timed out (H11), or a user says so
    REMOVE = "remove"  # its task, or its map_index, is not in the DAG any more


MOVES: dict[Event, tuple[frozenset[State], State]] = {
    Event.SCHEDULE: (frozenset({State.NONE, State.UP_FOR_RETRY}), State.SCHEDULED),
    Event.ENQUEUE: (frozenset({State.SCHEDULED}), State.QUEUED),
    Event.START: (frozenset({State.QUEUED}), State.RUNNING),
    # Deferred: a trigger that ends its task (D11).
    Event.SUCCEED: (frozenset({State.RUNNING, State.DEFERRED}), State.SUCCESS),
    Event.COMPLETE: (frozenset({State.SCHEDULED}), State.SUCCESS),
    Event.FAIL: (frozenset({State.QUEUED, State.RUNNING, State.DEFERRED}), State.FAILED),
    Event.RETRY: (
        frozenset({State.QUEUED, State.RUNNING, State.DEFERRED}),
        State.UP_FOR_RETRY,
    ),
    # Deferred: a sensor that is to be skipped when its time is up.
    Event.END_SKIPPED: (frozenset({State.RUNNING, State.DEFERRED}), State.SKIPPED),
    Event.SKIP: (frozenset({State.NONE, State.SCHEDULED}), State.SKIPPED),
    Event.UPSTREAM_FAIL: (frozenset({State.NONE}), State.UPSTREAM_FAILED),
    Event.REFUSE: (frozenset({State.NONE}), State.FAILED),
    Event.DEFER: (frozenset({State.RUNNING}), State.DEFERRED),
    Event.START_DEFERRED: (frozenset({State.SCHEDULED}), State.DEFERRED),
    Event.RESUME: (frozenset({State.DEFERRED}), State.SCHEDULED),
    Event.LOSE: (frozenset({State.QUEUED, State.RUNNING}), State.SCHEDULED),
    Event.CLEAR: (frozenset(set(State) - {State.NONE}), State.NONE),
    Event.MARK_SUCCESS: (frozenset(set(State) - {State.SUCCESS}), State.SUCCESS),
    Event.MARK_FAILED: (frozenset(set(State) - {State.FAILED}), State.FAILED),
    Event.MARK_SKIPPED: (frozenset(set(State) - {State.SKIPPED}), State.SKIPPED),
    Event.REMOVE: (frozenset(set(State) - IN_FLIGHT - {State.REMOVED}), State.REMOVED),
}


class RunState(StrEnum):
    """State of a DAG run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class RunEvent(StrEnum):
    """What happens to a DAG run."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CLEAR = "clear"  # a user wants some of it to run again
    MARK_SUCCESS = "mark_success"
    MARK_FAILED = "mark_failed"


RUN_MOVES: dict[RunEvent, tuple[frozenset[RunState], RunState]] = {
    RunEvent.START: (frozenset({RunState.QUEUED}), RunState.RUNNING),
    RunEvent.SUCCEED: (frozenset({RunState.RUNNING}), RunState.SUCCESS),
    RunEvent.FAIL: (frozenset({RunState.QUEUED, RunState.RUNNING}), RunState.FAILED),
    RunEvent.CLEAR: (frozenset({RunState.SUCCESS, RunState.FAILED}), RunState.QUEUED),
    RunEvent.MARK_SUCCESS: (frozenset(set(RunState) - {RunState.SUCCESS}), RunState.SUCCESS),
    RunEvent.MARK_FAILED: (frozenset(set(RunState) - {RunState.FAILED}), RunState.FAILED),
}
