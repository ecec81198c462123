"""Settle what belongs to waiting: deferrals, and events of triggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from roost.models.queries import inbox, kills
from roost.models.queries.inbox import FiredTrigger, NewTrigger
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun, Alarm, Waiting
from roost.scheduler.steps.end_event import ENDS, WaitsOver
from roost.scheduler.steps.ending import BY_DISPATCH, Batch, Ended
from roost.scheduler.turn import Turn
from roost.support.clock import SECOND
from roost.support.sealed import merged, text_of
from roost.support.wire import NOWHERE, DeferSpec

__all__ = ["NOT_SOON_US", "defer", "kill_deferrals", "settle_events"]

# Twice as long as a triggerer sleeps when nobody wakes it.
NOT_SOON_US = 10 * SECOND
# Of events that a turn takes: each may have a MiB, and tens of them with what its task leaves.
_MOST_BYTES = 16 << 20


def defer(turn: Turn, items: Sequence[Ended]) -> None:
    """Write the triggers and move to deferred in one transaction; the slots are free (N1, D2)."""
    if not items:
        return
    created = inbox.create_triggers(turn.tx, [_trigger_row(turn, item) for item in items])
    batch = Batch(Event.DEFER, sets=("trigger_id",), adds=("run_us",), guards=BY_DISPATCH)
    for item in items:
        ti_id = item.dispatch.ti_id
        if ti_id in created:
            row = {
                "trigger_id": created[ti_id],
                "run_us": item.outcome.run_us,
                "if_dispatch_id": item.dispatch.id,
            }
            batch.add(ti_id, row, _deferred(turn, item, created[ti_id]))
            if item.outcome.defer is not None and item.outcome.defer.lane == "external":
                turn.awaiting.append(created[ti_id])
    stray = batch.flush(turn)
    inbox.delete_triggers(turn.tx, [created[ti_id] for ti_id in stray])
    turn.deferred |= any(_is_urgent(turn, _spec(item)) for item in items)


def _is_urgent(turn: Turn, spec: DeferSpec) -> bool:
    """Whether a triggerer must look now. It finds a timer in time that is due long after its next
    look; a thousand tasks that begin to wait for tonight would have it look hundreds of times."""
    return spec.due_at is None or spec.due_at < turn.now + NOT_SOON_US


def kill_deferrals(turn: Turn, items: Sequence[Ended]) -> None:
    """Have ended what these tasks began elsewhere: a user was faster than their deferral (D10)."""
    polls = [one for one in items if one.outcome.defer is not None and _spec(one).lane == "poll"]
    if polls:
        inbox.create_triggers(turn.tx, [_trigger_row(turn, item) for item in polls])
        kills.kill_triggers_of(turn.tx, [item.dispatch.ti_id for item in polls])
        turn.deferred = True


def _deferred(turn: Turn, item: Ended, trigger_id: int) -> Callable[[], None]:
    def then() -> None:
        run, spec = item.run, _spec(item)
        turn.let_go(run, item.task, defers=True)
        run.board.settle(item.task, State.DEFERRED)
        if spec.timeout_us is not None:
            due_at = item.outcome.ended_at + spec.timeout_us
            alarm = Alarm(due_at, run.key, item.dispatch.ti_id, trigger_id, spec.on_timeout)
            turn.book.alarm(alarm)
        turn.touch(run)

    return then


def _spec(item: Ended) -> DeferSpec:
    assert item.outcome.defer is not None  # noqa: S101 - the kind says so
    return item.outcome.defer


def _trigger_row(turn: Turn, item: Ended) -> NewTrigger:
    run, spec = item.run, _spec(item)
    timeout_at = None if spec.timeout_us is None else item.outcome.ended_at + spec.timeout_us
    return NewTrigger(
        ti_id=item.dispatch.ti_id,
        dag_run_id=run.key,
        dispatch_id=item.dispatch.id,
        lane=spec.lane,
        classpath=spec.classpath,
        source=spec.source,
        kwargs=text_of(spec.kwargs),
        next_method=spec.next_method,
        next_kwargs=text_of(spec.next_kwargs),
        code_hash=run.version.code_hash,
        fileloc=run.version.fileloc,
        queue=run.board.tasks[item.task].queue,
        due_at=spec.due_at,
        timeout_at=timeout_at,
        external_key=spec.key,
        on_timeout=spec.on_timeout,
        rank=-run.board.weights[item.task],  # triggers of heavier tasks are claimed first (D16)
    )


def settle_events(turn: Turn) -> None:
    """Resume what a trigger fired for; fail or retry where it failed, without a slot (D3, D5)."""
    slices = turn.memory.slices
    fired, cut = inbox.fired_triggers(turn.tx, turn.job_id, slices.size, _MOST_BYTES)
    turn.events_left = slices.took(len(fired), cut)
    turn.more |= turn.events_left
    done = []
    over = WaitsOver(turn)
    for event in fired:
        run = turn.book.runs.get(event.dag_run_id)
        if run is None:
            continue
        done.append(event.id)
        index = run.board.index_of(event.ti_id)
        if index is None:
            continue
        if event.kind == "fired" and event.next_method is not None:
            _resume(turn, run, index, event)
        elif event.kind == "fired":
            over.fail(run, index, event.id, NOWHERE)
        elif event.kind in ENDS:
            over.end_as_told(run, index, event)
        else:
            over.fail(run, index, event.id, event.error or event.kind)
    over.flush()
    # A resumed task instance goes on naming the trigger that it waited for, as its log rows do.
    inbox.delete_triggers(turn.tx, done)


def _resume(turn: Turn, run: ActiveRun, index: int, event: FiredTrigger) -> None:
    if run.board.states[index] != State.DEFERRED:
        return
    columns: dict[str, object] = {
        "next_method": event.next_method,
        "next_kwargs": merged(event.next_kwargs, event.payload or "null"),
        "scheduled_at": turn.now,
    }
    run.resumed.add(index)
    run.wait(index, Waiting((Event.RESUME,), columns, ("trigger_id", event.id)))
    run.board.settle(index, State.SCHEDULED)
    turn.memory.ready.add(run, index)
    turn.touch(run)
