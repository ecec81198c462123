"""End deferred tasks without a worker: with state, XComs and all that follows (D6, D11)."""

from __future__ import annotations

import msgspec

from roost.models.queries import xcoms
from roost.models.queries.inbox import FiredTrigger
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun
from roost.scheduler.steps.assets import produce
from roost.scheduler.steps.callbacks import task_ended
from roost.scheduler.steps.ending import END, fail_or_retry
from roost.scheduler.turn import Turn
from roost.support.wire import XComWrite

__all__ = ["ENDS", "end_from_trigger", "end_well"]

_XCOMS = msgspec.json.Decoder(list[XComWrite])
_FAILED = "end_failed"
_GOOD = {"end_success": State.SUCCESS, "end_skipped": State.SKIPPED}
ENDS = frozenset({*_GOOD, _FAILED})


def end_from_trigger(turn: Turn, run: ActiveRun, index: int, event: FiredTrigger) -> None:
    """End a deferred task instance as its trigger's event says; retries count for a failure.

    What a try left that is tried again is for nobody, so its XComs are not written (S16).
    """
    if run.board.states[index] != State.DEFERRED:
        return
    if event.kind == _FAILED:
        _fail(turn, run, index, event)
        return
    state = _GOOD[event.kind]
    if end_well(turn, run, index, event.id, state, event.error or "ended by its trigger"):
        xcoms.leave(turn.tx, run.board.ti_ids[index], _xcoms(event))


def end_well(
    turn: Turn, run: ActiveRun, index: int, trigger_id: int, state: State, reason: str
) -> bool:
    """Let a deferred task instance succeed or be skipped; False when others had moved it."""
    row = {"id": run.board.ti_ids[index], "end_date": turn.now, "if_trigger_id": trigger_id}
    event = Event.SUCCEED if state is State.SUCCESS else Event.END_SKIPPED
    if not turn.move(event, [row], sets=END, guards=("trigger_id",), reason=reason):
        return False
    turn.give_back(run, index)
    run.board.settle(index, state)
    task = run.board.tasks[index]
    turn.ended[run.dag_id, task.task_id, str(state)] += 1
    error = reason if state is State.SKIPPED else None
    task_ended(turn, run, index, state, ended_at=turn.now, error=error)
    if state is State.SUCCESS and task.outlets:
        produce(turn, run, index)
    turn.touch(run)
    return True


def _fail(turn: Turn, run: ActiveRun, index: int, event: FiredTrigger) -> None:
    failed = fail_or_retry(
        turn,
        run,
        index,
        guard=("trigger_id", event.id),
        ended_at=turn.now,
        run_us=0,
        retryable=True,
        reason=event.error or "its trigger says that it failed",
        held_dispatch=False,
    )
    if failed and run.board.states[index] == State.FAILED:
        xcoms.leave(turn.tx, run.board.ti_ids[index], _xcoms(event))


def _xcoms(event: FiredTrigger) -> list[XComWrite]:
    return [] if event.xcoms is None else _XCOMS.decode(event.xcoms)
