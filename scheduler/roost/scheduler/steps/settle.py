"""Settle the inbox: outcomes of dispatches, events of triggers, retries and time-outs due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from roost.models.queries import inbox
from roost.models.queries.inbox import EndedDispatch, FiredTrigger, NewTrigger
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun, Alarm, Waiting
from roost.scheduler.retry import has_try_left, retry_delay_us
from roost.scheduler.turn import Turn
from roost.support.wire import DeferSpec, Outcome

__all__ = ["settle_alarms", "settle_events", "settle_outcomes"]

_OUTCOME = msgspec.json.Decoder(Outcome)


class _Ended(NamedTuple):
    run: ActiveRun
    task: int  # index in the run's plan
    dispatch: EndedDispatch
    outcome: Outcome


class _Batch:
    """Rows of one kind of move, and what to do for each row that really moved."""

    def __init__(
        self,
        event: Event,
        *,
        sets: tuple[str, ...],
        adds: tuple[str, ...] = (),
        guards: tuple[str, ...],
    ) -> None:
        self.event, self.sets, self.adds, self.guards = event, sets, adds, guards
        self.rows: list[dict[str, Any]] = []
        self.then: dict[int, Callable[[], None]] = {}

    def add(self, ti_id: int, row: dict[str, Any], then: Callable[[], None]) -> None:
        self.rows.append({"id": ti_id, **row})
        self.then[ti_id] = then

    def flush(self, turn: Turn, reason: str | None = None) -> set[int]:
        """Write the moves; gives the ids that did not move."""
        moved = turn.move(
            self.event,
            self.rows,
            sets=self.sets,
            adds=self.adds,
            guards=self.guards,
            reason=reason,
        )
        for ti_id in moved:
            self.then[ti_id]()
        return self.then.keys() - moved.keys()


_BY_DISPATCH = ("dispatch_id",)
_END = ("end_date",)


def settle_outcomes(turn: Turn) -> None:
    """Move every task instance whose dispatch ended, guarded by that very dispatch (S2)."""
    ended = inbox.take_ended_dispatches(turn.tx, turn.job_id, turn.batch)
    if not ended:
        return
    turn.more |= len(ended) == turn.batch
    lost = _Batch(Event.LOSE, sets=("losses", "scheduled_at"), guards=_BY_DISPATCH)
    success = _Batch(Event.SUCCEED, sets=_END, adds=("run_us",), guards=_BY_DISPATCH)
    skipped = _Batch(Event.END_SKIPPED, sets=_END, adds=("run_us",), guards=_BY_DISPATCH)
    failing: list[_Ended] = []
    deferring: list[_Ended] = []
    for dispatch in ended:
        run = turn.book.runs.get(dispatch.dag_run_id)
        index = None if run is None else run.board.index_of(dispatch.ti_id)
        if run is None or index is None:
            continue  # the run has ended, or the task instance is none of its version's
        item = _Ended(run, index, dispatch, _read_outcome(turn, dispatch))
        match item.outcome.kind:
            case "success":
                success.add(dispatch.ti_id, _ending(item), _finish(turn, item, State.SUCCESS))
            case "skipped":
                skipped.add(dispatch.ti_id, _ending(item), _finish(turn, item, State.SKIPPED))
            case "deferred":
                deferring.append(item)
            case "lost" if run.losses.get(index, 0) < turn.max_losses:
                lost.add(dispatch.ti_id, _losing(turn, item), _lose(turn, item))
            case "failed" | "lost":
                failing.append(item)
    lost.flush(turn)
    success.flush(turn)
    skipped.flush(turn)
    _fail(turn, failing)
    _defer(turn, deferring)


def _read_outcome(turn: Turn, dispatch: EndedDispatch) -> Outcome:
    """What a worker wrote. A text that cannot be read fails that task, not the scheduler."""
    try:
        outcome = _OUTCOME.decode(dispatch.outcome)
        if outcome.kind != "deferred" or outcome.defer is not None:
            return outcome
        error = "it says deferred, but not until what"
    except (msgspec.DecodeError, ValueError) as problem:
        error = str(problem)
    return Outcome(
        "failed",
        started_at=turn.now,
        ended_at=turn.now,
        error=f"the outcome that the worker stored cannot be read: {error}",
    )


def _ending(item: _Ended) -> dict[str, Any]:
    return {
        "end_date": item.outcome.ended_at,
        "run_us": item.outcome.run_us,
        "if_dispatch_id": item.dispatch.id,
    }


def _finish(turn: Turn, item: _Ended, state: State) -> Callable[[], None]:
    def then() -> None:
        run = item.run
        turn.let_go(run, item.task)
        run.board.settle(item.task, state)
        turn.ended[run.dag_id, run.board.plan.tasks[item.task].task_id, str(state)] += 1
        if item.outcome.skip:
            _skip_directly(turn, run, item.outcome.skip)
        turn.touch(run)

    return then


def _skip_directly(turn: Turn, run: ActiveRun, task_ids: list[str]) -> None:
    """Skip what a branch did not follow (S70-S72), never what already started (H28)."""
    index = run.board.plan.index
    known = [index[t] for t in task_ids if t in index]
    skipped = run.board.force_skip([i for i in known if not run.has_started(i)])
    rows = [{"id": run.board.ti_ids[i], "end_date": turn.now} for i in skipped]
    turn.move(Event.SKIP, rows, sets=_END, reason="not chosen by a branch")
    for i in skipped:
        run.waiting.pop(i, None)


def _losing(turn: Turn, item: _Ended) -> dict[str, Any]:
    return {
        "losses": item.run.losses.get(item.task, 0) + 1,
        "scheduled_at": turn.now,
        "if_dispatch_id": item.dispatch.id,
    }


def _lose(turn: Turn, item: _Ended) -> Callable[[], None]:
    """Hand over anew what its worker lost: no try is consumed, up to a budget (S11)."""

    def then() -> None:
        run, index = item.run, item.task
        run.losses[index] = run.losses.get(index, 0) + 1
        # What goes on after a deferral holds its slots while it waits again (H5).
        turn.let_go(run, index, defers=index in run.resumed)
        run.board.settle(index, State.SCHEDULED)
        run.wait(index, Waiting((), {}))
        turn.memory.ready.add(run, index)
        turn.touch(run)

    return then


def _fail(turn: Turn, items: list[_Ended]) -> None:
    """Fail or retry. The reason is each one's own, so each is a statement of its own."""
    for item in items:
        _fail_or_retry(
            turn,
            item.run,
            item.task,
            guard=("dispatch_id", item.dispatch.id),
            ended_at=item.outcome.ended_at,
            run_us=item.outcome.run_us,
            retryable=item.outcome.retryable,
            reason=item.outcome.error,
            held_dispatch=True,
        )


def _fail_or_retry(
    turn: Turn,
    run: ActiveRun,
    index: int,
    *,
    guard: tuple[str, int],
    ended_at: int,
    run_us: int,
    retryable: bool,
    reason: str | None,
    held_dispatch: bool,
) -> bool:
    task, ti_id = run.board.plan.tasks[index], run.board.ti_ids[index]
    row: dict[str, Any] = {"id": ti_id, "end_date": ended_at, "run_us": run_us}
    row[f"if_{guard[0]}"] = guard[1]
    retry = retryable and has_try_left(task, run.tries[index])
    event = Event.FAIL
    sets: tuple[str, ...] = _END
    if retry:
        seed = f"{run.dag_id}.{run.run_id}.{task.task_id}"
        row["retry_at"] = ended_at + retry_delay_us(task, run.tries[index], seed)
        event, sets = Event.RETRY, ("end_date", "retry_at")
    if not turn.move(event, [row], sets=sets, adds=("run_us",), guards=guard[:1], reason=reason):
        return False
    if held_dispatch:
        turn.let_go(run, index)
    elif index in run.holding:
        turn.give_back(run, index)
    if retry:
        inbox.clear_xcoms(turn.tx, [ti_id])
        run.board.settle(index, State.UP_FOR_RETRY)
        turn.book.alarm(Alarm(row["retry_at"], run.key, ti_id, None))
    else:
        run.board.settle(index, State.FAILED)
    state = State.UP_FOR_RETRY if retry else State.FAILED
    turn.ended[run.dag_id, task.task_id, str(state)] += 1
    turn.touch(run)
    return True


def _defer(turn: Turn, items: list[_Ended]) -> None:
    """Write the triggers and move to deferred in one transaction; the slots are free (N1, D2)."""
    if not items:
        return
    created = inbox.create_triggers(turn.tx, [_trigger_row(turn, item) for item in items])
    batch = _Batch(Event.DEFER, sets=("trigger_id",), adds=("run_us",), guards=_BY_DISPATCH)
    for item in items:
        ti_id = item.dispatch.ti_id
        if ti_id in created:
            row = {
                "trigger_id": created[ti_id],
                "run_us": item.outcome.run_us,
                "if_dispatch_id": item.dispatch.id,
            }
            batch.add(ti_id, row, _deferred(turn, item, created[ti_id]))
    stray = batch.flush(turn)
    inbox.delete_triggers(turn.tx, [created[ti_id] for ti_id in stray])
    turn.deferred = True


def _deferred(turn: Turn, item: _Ended, trigger_id: int) -> Callable[[], None]:
    def then() -> None:
        run, spec = item.run, _spec(item)
        turn.let_go(run, item.task, defers=True)
        run.board.settle(item.task, State.DEFERRED)
        if spec.timeout_us is not None:
            due_at = item.outcome.ended_at + spec.timeout_us
            turn.book.alarm(Alarm(due_at, run.key, item.dispatch.ti_id, trigger_id))
        turn.touch(run)

    return then


def _spec(item: _Ended) -> DeferSpec:
    assert item.outcome.defer is not None  # noqa: S101 - the kind says so
    return item.outcome.defer


def _trigger_row(turn: Turn, item: _Ended) -> NewTrigger:
    run, spec = item.run, _spec(item)
    timeout_at = None if spec.timeout_us is None else item.outcome.ended_at + spec.timeout_us
    return NewTrigger(
        ti_id=item.dispatch.ti_id,
        dag_run_id=run.key,
        dispatch_id=item.dispatch.id,
        lane=spec.lane,
        classpath=spec.classpath,
        source=spec.source,
        kwargs=bytes(spec.kwargs).decode(),
        next_method=spec.next_method,
        next_kwargs=bytes(spec.next_kwargs).decode(),
        code_hash=run.version.code_hash,
        fileloc=run.version.fileloc,
        queue=run.board.plan.tasks[item.task].queue,
        due_at=spec.due_at,
        timeout_at=timeout_at,
        external_key=spec.key,
    )


def settle_events(turn: Turn) -> None:
    """Resume what a trigger fired for; fail or retry where it failed, without a slot (D3, D5)."""
    fired = inbox.fired_triggers(turn.tx, turn.job_id, turn.batch)
    turn.more |= len(fired) == turn.batch
    turn.events_left = len(fired) == turn.batch
    done = []
    for event in fired:
        run = turn.book.runs.get(event.dag_run_id)
        if run is None:
            continue
        done.append(event.id)
        index = run.board.index_of(event.ti_id)
        if index is None:
            continue
        if event.kind == "fired":
            _resume(turn, run, index, event)
        else:
            _end_deferral(turn, run, index, event.id, event.error or event.kind)
    # A resumed task instance goes on naming the trigger that it waited for, as its log rows do.
    inbox.delete_triggers(turn.tx, done)


def _resume(turn: Turn, run: ActiveRun, index: int, event: FiredTrigger) -> None:
    if run.board.states[index] != State.DEFERRED:
        return
    columns: dict[str, object] = {
        "next_method": event.next_method,
        "next_kwargs": _with_event(event.next_kwargs, event.payload or "null"),
        "scheduled_at": turn.now,
    }
    run.resumed.add(index)
    run.wait(index, Waiting((Event.RESUME,), columns, ("trigger_id", event.id)))
    run.board.settle(index, State.SCHEDULED)
    turn.memory.ready.add(run, index)
    turn.touch(run)


def _with_event(next_kwargs: str, payload: str) -> str:
    """Typed JSON of the kwargs with ``event`` in them, both as they were validated (D3)."""
    fields = msgspec.json.decode(next_kwargs, type=dict[str, msgspec.Raw])
    fields["event"] = msgspec.Raw(payload.encode())
    return msgspec.json.encode(fields).decode()


def _end_deferral(turn: Turn, run: ActiveRun, index: int, trigger_id: int, reason: str) -> None:
    if run.board.states[index] == State.DEFERRED:
        _fail_or_retry(
            turn,
            run,
            index,
            guard=("trigger_id", trigger_id),
            ended_at=turn.now,
            run_us=0,
            retryable=True,
            reason=reason,
            held_dispatch=False,
        )


def settle_alarms(turn: Turn) -> None:
    """Wake retries that are due and end deferrals that waited too long (D6: a timer)."""
    timed_out = []
    for alarm in turn.book.due_alarms(turn.now):
        run = turn.book.runs.get(alarm.run_key)
        index = None if run is None else run.board.index_of(alarm.ti_id)
        if run is None or index is None:
            continue
        if alarm.trigger_id is not None:
            if turn.events_left:  # its event may be among them, stored in time
                turn.book.alarm(alarm)
                continue
            _end_deferral(
                turn, run, index, alarm.trigger_id, "the trigger timed out: no event in time"
            )
            timed_out.append(alarm.trigger_id)
        elif run.board.states[index] == State.UP_FOR_RETRY:
            run.board.settle(index, State.SCHEDULED)
            schedule(turn, run, index)
    inbox.delete_triggers(turn.tx, timed_out)


def schedule(turn: Turn, run: ActiveRun, index: int) -> None:
    """Let a task instance start a new try as soon as there are slots."""
    run.tries[index] += 1
    run.resumed.discard(index)
    columns: dict[str, object] = {
        "try_number": run.tries[index],
        "scheduled_at": turn.now,
        "run_us": 0,
        "start_date": None,
        "end_date": None,
        "next_method": None,
        "next_kwargs": None,
        "trigger_id": None,
    }
    run.wait(index, Waiting((Event.SCHEDULE,), columns))
    turn.memory.ready.add(run, index)
    turn.touch(run)
