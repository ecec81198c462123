"""Settle the outcomes that workers left in the inbox (S2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roost.models.queries import inbox
from roost.models.queries.inbox import EndedDispatch
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun, Waiting
from roost.scheduler.steps.assets import produce
from roost.scheduler.steps.callbacks import settle_callback, task_ended
from roost.scheduler.steps.deferral import defer
from roost.scheduler.steps.ending import BY_DISPATCH, END, Batch, Ended, Failure, fail_or_retry
from roost.scheduler.steps.wishes import grant_wishes
from roost.scheduler.turn import Turn
from roost.support.wire import DeferSpec, Outcome

__all__ = ["settle_outcomes"]

_OUTCOME = msgspec.json.Decoder(Outcome)
_LAST_US = 2**60  # some 36,000 years: with it added, a moment still fits its column


def settle_outcomes(turn: Turn) -> None:
    """Move every task instance whose dispatch ended, guarded by that very dispatch (S2)."""
    ended = inbox.take_ended_dispatches(turn.tx, turn.job_id, turn.batch)
    if not ended:
        return
    turn.more |= len(ended) == turn.batch
    afresh: list[int] = []
    lost = Batch(Event.LOSE, sets=("losses", "scheduled_at"), guards=BY_DISPATCH)
    success = Batch(Event.SUCCEED, sets=END, adds=("run_us",), guards=BY_DISPATCH)
    skipped = Batch(Event.END_SKIPPED, sets=END, adds=("run_us",), guards=BY_DISPATCH)
    failing: list[Failure] = []
    deferring: list[Ended] = []
    items = _items(turn, _of_tasks(turn, ended))
    grant_wishes(turn, [item for item in items if item.dispatch.wish is not None])
    for item in (item for item in items if item.dispatch.wish is None):
        run, index, dispatch = item.run, item.task, item.dispatch
        match item.outcome.kind:
            case "success":
                success.add(dispatch.ti_id, _ending(item), _finish(turn, item, State.SUCCESS))
            case "skipped":
                skipped.add(dispatch.ti_id, _ending(item), _finish(turn, item, State.SKIPPED))
            case "deferred":
                deferring.append(item)
            case "lost" if run.losses.get(index, 0) < turn.max_losses:
                then = _lose(turn, item, afresh)
                lost.add(dispatch.ti_id, _losing(turn, item), then, item.outcome.error)
            case "failed" | "lost":
                failing.append(_failure(item))
    lost.flush(turn)
    if afresh:
        inbox.clear_xcoms(turn.tx, afresh)
    success.flush(turn)
    skipped.flush(turn)
    fail_or_retry(turn, failing, "dispatch_id")
    defer(turn, deferring)


def _items(turn: Turn, ended: list[EndedDispatch]) -> list[Ended]:
    """Those of which the run goes on, and the task instance is one of its version's."""
    items = []
    for dispatch in ended:
        run = turn.book.runs.get(dispatch.dag_run_id)
        index = None if run is None else run.board.index_of(dispatch.ti_id)
        if run is not None and index is not None:
            items.append(Ended(run, index, dispatch, _read_outcome(turn, dispatch)))
    return items


def _of_tasks(turn: Turn, ended: list[EndedDispatch]) -> list[EndedDispatch]:
    """Settle the callbacks; gives the others."""
    callbacks = [one for one in ended if one.callback is not None]
    for one in callbacks:
        settle_callback(turn, one, _read_outcome(turn, one), turn.max_losses)
    return [one for one in ended if one.callback is None] if callbacks else ended


def _read_outcome(turn: Turn, dispatch: EndedDispatch) -> Outcome:
    """What a worker wrote. A text that cannot be read fails that task, not the scheduler."""
    try:
        outcome = _OUTCOME.decode(dispatch.outcome)
        if outcome.retry_delay_us is not None:
            outcome.retry_delay_us = max(0, min(outcome.retry_delay_us, _LAST_US))
        if outcome.kind != "deferred" or _can_wait(outcome.defer):
            return outcome
        error = "it says deferred, but not until what, or until when no clock will ever show"
    except (msgspec.DecodeError, ValueError) as problem:
        error = str(problem)
    return Outcome(
        "failed",
        started_at=turn.now,
        ended_at=turn.now,
        error=f"the outcome that the worker stored cannot be read: {error}",
    )


def _can_wait(spec: DeferSpec | None) -> bool:
    if spec is None or (spec.lane == "timer" and spec.due_at is None):
        return False
    return abs(spec.due_at or 0) <= _LAST_US and 0 <= (spec.timeout_us or 0) <= _LAST_US


def _ending(item: Ended) -> dict[str, Any]:
    return {
        "end_date": item.outcome.ended_at,
        "run_us": item.outcome.run_us,
        "if_dispatch_id": item.dispatch.id,
    }


def _failure(item: Ended) -> Failure:
    outcome = item.outcome
    return Failure(
        item.run,
        item.task,
        item.dispatch.id,
        outcome.ended_at,
        outcome.error,
        run_us=outcome.run_us,
        retryable=outcome.retryable,
        started_at=outcome.started_at,
        delay_us=outcome.retry_delay_us,
    )


def _finish(turn: Turn, item: Ended, state: State) -> Callable[[], None]:
    def then() -> None:
        run = item.run
        turn.let_go(run, item.task)
        run.board.settle(item.task, state)
        turn.ended[run.dag_id, run.board.tasks[item.task].task_id, str(state)] += 1
        began, ended = item.outcome.started_at, item.outcome.ended_at
        task_ended(turn, run, item.task, state, started_at=began, ended_at=ended)
        if state is State.SUCCESS and run.board.tasks[item.task].outlets:
            produce(turn, run, item.task, item.outcome.assets)
        if item.outcome.skip:
            _skip_directly(turn, run, item.task, item.outcome.skip)
        turn.touch(run)

    return then


def _skip_directly(turn: Turn, run: ActiveRun, branch: int, task_ids: list[str]) -> None:
    """Skip what a branch did not follow (S70-S72), never what already started (H28).

    All instances of a mapped task; in a branch's own mapped group those of its ``map_index``.
    """
    index = run.board.plan.index
    tasks = [index[t] for t in task_ids if t in index]
    known = [i for task in tasks for i in run.board.concerned(branch, task)]
    idle = [i for i in known if not run.has_started(i) and not run.has_dispatch(i)]
    skipped = run.board.force_skip(idle)
    rows = [{"id": run.board.ti_ids[i], "end_date": turn.now} for i in skipped]
    turn.move(Event.SKIP, rows, sets=END, reason="not chosen by a branch")
    for i in skipped:
        run.waiting.pop(i, None)


def _losing(turn: Turn, item: Ended) -> dict[str, Any]:
    return {
        "losses": item.run.losses.get(item.task, 0) + 1,
        "scheduled_at": turn.now,
        "if_dispatch_id": item.dispatch.id,
    }


def _lose(turn: Turn, item: Ended, afresh: list[int]) -> Callable[[], None]:
    """Hand over anew what its worker lost: no try is consumed, up to a budget (S11).

    What begins afresh joins ``afresh``, to be rid of what it left so far (S16); what goes on after
    a deferral keeps what it left before it.
    """

    def then() -> None:
        run, index = item.run, item.task
        run.losses[index] = run.losses.get(index, 0) + 1
        if index not in run.resumed:
            afresh.append(item.dispatch.ti_id)
        # What goes on after a deferral holds its slots while it waits again (H5).
        turn.let_go(run, index, defers=index in run.resumed)
        run.board.settle(index, State.SCHEDULED)
        run.wait(index, Waiting((), {}))
        turn.line_up(run, index)
        turn.touch(run)

    return then
