"""End deferred tasks without a worker: with state, XComs and all that follows (D5, D6, D11)."""

from __future__ import annotations

from functools import partial

import msgspec

from roost.models.queries import xcoms
from roost.models.queries.inbox import FiredTrigger
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun
from roost.scheduler.steps.assets import produce
from roost.scheduler.steps.callbacks import task_ended
from roost.scheduler.steps.ending import END, Batch, Failure, fail_or_retry
from roost.scheduler.turn import Turn
from roost.support.wire import XComWrite

__all__ = ["ENDS", "WaitsOver"]

_XCOMS = msgspec.json.Decoder(list[XComWrite])
_FAILED = "end_failed"
_GOOD = {"end_success": State.SUCCESS, "end_skipped": State.SKIPPED}
ENDS = frozenset({*_GOOD, _FAILED})


class WaitsOver:
    """Deferred task instances that end in a turn and need no worker for it, moved all at once.

    Whatever their number, they are a few statements. Each is guarded by the trigger that it
    waited for, so one that others have moved is left alone.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._failures: list[Failure] = []
        self._good = {
            State.SUCCESS: Batch(Event.SUCCEED, sets=END, guards=("trigger_id",)),
            State.SKIPPED: Batch(Event.END_SKIPPED, sets=END, guards=("trigger_id",)),
        }
        self._xcoms: dict[int, list[XComWrite]] = {}  # by task instance: what it leaves if it ends

    def fail(
        self, run: ActiveRun, index: int, trigger_id: int, reason: str, *, retryable: bool = True
    ) -> None:
        """Fail it, or have it tried again (D5, D6)."""
        if run.board.states[index] == State.DEFERRED:
            now = self._turn.now
            failure = Failure(run, index, trigger_id, now, reason, retryable=retryable)
            self._failures.append(failure)

    def end(self, run: ActiveRun, index: int, trigger_id: int, state: State, reason: str) -> None:
        """Let it succeed or be skipped."""
        if run.board.states[index] == State.DEFERRED:
            row = {"end_date": self._turn.now, "if_trigger_id": trigger_id}
            then = partial(_ended, self._turn, run, index, state, reason)
            self._good[state].add(run.board.ti_ids[index], row, then, reason)

    def end_as_told(self, run: ActiveRun, index: int, event: FiredTrigger) -> None:
        """End it as its trigger's event says; retries count for a failure (D11)."""
        if event.xcoms is not None:
            self._xcoms[event.ti_id] = _XCOMS.decode(event.xcoms)
        if event.kind == _FAILED:
            reason = event.error or "its trigger says that it failed"
            self.fail(run, index, event.id, reason)
        else:
            reason = event.error or "ended by its trigger"
            self.end(run, index, event.id, _GOOD[event.kind], reason)

    def flush(self) -> None:
        """Write the moves, and the XComs of those that moved and are not tried again (S16)."""
        turn = self._turn
        over: set[int] = set()
        for batch in self._good.values():
            over |= batch.then.keys() - batch.flush(turn)
        for one in fail_or_retry(turn, self._failures, "trigger_id"):
            if one.run.board.states[one.task] == State.FAILED:
                over.add(one.run.board.ti_ids[one.task])
        xcoms.leave(turn.tx, {ti_id: self._xcoms[ti_id] for ti_id in self._xcoms if ti_id in over})


def _ended(turn: Turn, run: ActiveRun, index: int, state: State, reason: str) -> None:
    """What follows when a task instance has succeeded or was skipped."""
    turn.give_back(run, index)
    run.board.settle(index, state)
    task = run.board.tasks[index]
    turn.ended[run.dag_id, task.task_id, str(state)] += 1
    error = reason if state is State.SKIPPED else None
    task_ended(turn, run, index, state, ended_at=turn.now, error=error)
    if state is State.SUCCESS and task.outlets:
        produce(turn, run, index)
    turn.touch(run)
