"""How a try ends: the moves that the steps share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple

from roost.models.queries import inbox
from roost.models.queries.inbox import EndedDispatch
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun, Alarm, Waiting
from roost.scheduler.retry import has_try_left, retry_delay_us
from roost.scheduler.steps.callbacks import task_ended
from roost.scheduler.turn import Turn
from roost.support.wire import Outcome

__all__ = ["BY_DISPATCH", "END", "Batch", "Ended", "Failure", "fail_or_retry", "schedule"]

BY_DISPATCH = ("dispatch_id",)
END = ("end_date",)


class Ended(NamedTuple):
    """A dispatch that ended, with the task instance that it was for."""

    run: ActiveRun
    task: int  # index on the run's board
    dispatch: EndedDispatch
    outcome: Outcome


class Batch:
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
        self.reasons: dict[int, str | None] = {}

    def add(
        self, ti_id: int, row: dict[str, Any], then: Callable[[], None], reason: str | None = None
    ) -> None:
        """Add a row; ``then`` is called if it moves. The reason is for the log."""
        self.rows.append({"id": ti_id, **row})
        self.then[ti_id] = then
        if reason:
            self.reasons[ti_id] = reason

    def flush(self, turn: Turn) -> set[int]:
        """Write the moves; gives the ids that did not move."""
        moved = turn.move(
            self.event,
            self.rows,
            sets=self.sets,
            adds=self.adds,
            guards=self.guards,
            reason=self.reasons or None,
        )
        for ti_id in moved:
            self.then[ti_id]()
        return self.then.keys() - moved.keys()


class Failure(NamedTuple):
    """A try that failed.

    Attributes:
        run: the run of the task instance.
        task: the task instance's place on the run's board.
        held: what the row must still hold: its dispatch, or its trigger.
        ended_at: when the try ended, in microseconds.
        reason: for the log.
        run_us: user-code time to add to the try's.
        retryable: False where the task asked not to be tried again.
        started_at: when the try began, as far as it is known.
        delay_us: how long to wait for the next try, where the task itself said so.
    """

    run: ActiveRun
    task: int
    held: int
    ended_at: int
    reason: str | None
    run_us: int = 0
    retryable: bool = True
    started_at: int | None = None
    delay_us: int | None = None


def fail_or_retry(
    turn: Turn, failures: Iterable[Failure], guard: Literal["dispatch_id", "trigger_id"]
) -> list[Failure]:
    """Fail tries, or have them tried again where ``retries`` allow, all at once (S11, D5).

    Args:
        turn: the turn.
        failures: at most one of each task instance.
        guard: whether each ended with its dispatch, and its slots with it, or with its trigger.

    Returns:
        Those that failed or are tried again: not those whose task instance others had moved.
    """
    adds, guards = ("run_us",), (guard,)
    retried = Batch(Event.RETRY, sets=("end_date", "retry_at"), adds=adds, guards=guards)
    failed = Batch(Event.FAIL, sets=END, adds=adds, guards=guards)
    ended: list[Failure] = []
    for one in failures:
        ti_id = one.run.board.ti_ids[one.task]
        row = {"end_date": one.ended_at, "run_us": one.run_us, f"if_{guard}": one.held}
        retry_at = _retry_at(turn, one)
        then = partial(_failed, turn, one, guard, retry_at, ended)
        if retry_at is None:
            failed.add(ti_id, row, then, one.reason)
        else:
            retried.add(ti_id, row | {"retry_at": retry_at}, then, one.reason)
    retried.flush(turn)
    failed.flush(turn)
    # What a failed try left is for nobody: not for the next try, nor for tasks downstream (S16).
    inbox.clear_xcoms(turn.tx, [one.run.board.ti_ids[one.task] for one in ended])
    return ended


def _retry_at(turn: Turn, one: Failure) -> int | None:
    """When it is tried again, in microseconds; None if it is not."""
    run, task = one.run, one.run.board.tasks[one.task]
    tries = run.own_tries(one.task)
    if not (one.retryable and has_try_left(task, tries)):
        return None
    if one.delay_us is not None:
        return one.ended_at + one.delay_us
    seed = f"{run.dag_id}.{run.run_id}.{task.task_id}"
    if (map_index := run.board.map_index(one.task)) >= 0:
        seed += f".{map_index}"
    return one.ended_at + retry_delay_us(task, tries, seed, turn.max_retry_delay_us)


def _failed(
    turn: Turn, one: Failure, guard: str, retry_at: int | None, ended: list[Failure]
) -> None:
    """What follows when a task instance has failed, or is tried again then."""
    run, index = one.run, one.task
    task = run.board.tasks[index]
    if guard == "dispatch_id":
        turn.let_go(run, index)
    else:
        turn.give_back(run, index)
    state = State.FAILED if retry_at is None else State.UP_FOR_RETRY
    run.board.settle(index, state)
    if retry_at is not None:
        run.retries_at[index] = retry_at
        turn.book.alarm(Alarm(retry_at, run.key, run.board.ti_ids[index], None))
    elif run.board.plan.dag.fail_fast and not task.teardown:
        turn.failing.append(run)
    turn.ended[run.dag_id, task.task_id, str(state)] += 1
    began, at = one.started_at, one.ended_at
    task_ended(turn, run, index, state, started_at=began, ended_at=at, error=one.reason)
    turn.touch(run)
    ended.append(one)


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
    turn.line_up(run, index)
    turn.touch(run)
