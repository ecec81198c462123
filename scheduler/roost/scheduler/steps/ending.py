"""How a try ends: the moves that the steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from roost.models.queries import inbox
from roost.models.queries.inbox import EndedDispatch
from roost.models.states import Event, State
from roost.scheduler.book import ActiveRun, Alarm, Waiting
from roost.scheduler.retry import has_try_left, retry_delay_us
from roost.scheduler.steps.callbacks import task_ended
from roost.scheduler.turn import Turn
from roost.support.wire import Outcome

__all__ = ["BY_DISPATCH", "END", "Batch", "Ended", "fail_or_retry", "schedule"]

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

    def add(self, ti_id: int, row: dict[str, Any], then: Callable[[], None]) -> None:
        """Add a row; ``then`` is called if it moves."""
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


def fail_or_retry(
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
    started_at: int | None = None,
    delay_us: int | None = None,
) -> bool:
    """Fail a try, or have it tried again where ``retries`` allow (S11, D5).

    Args:
        turn: the turn.
        run: the run of the task instance.
        index: the task instance's place on the run's board.
        guard: column and value that the row must still hold: its dispatch, or its trigger.
        ended_at: when the try ended, in microseconds.
        run_us: user-code time to add to the try's.
        retryable: False where the task asked not to be tried again.
        reason: for the log.
        delay_us: how long to wait for the next try, where the task itself said so.
        held_dispatch: whether a dispatch, with its slots, ended with it.
        started_at: when the try began, as far as it is known.

    Returns:
        False when others had moved the task instance.
    """
    task, ti_id = run.board.tasks[index], run.board.ti_ids[index]
    row: dict[str, Any] = {"id": ti_id, "end_date": ended_at, "run_us": run_us}
    row[f"if_{guard[0]}"] = guard[1]
    retry = retryable and has_try_left(task, run.own_tries(index))
    event = Event.FAIL
    sets: tuple[str, ...] = END
    if retry:
        seed = f"{run.dag_id}.{run.run_id}.{task.task_id}"
        if (map_index := run.board.map_index(index)) >= 0:
            seed += f".{map_index}"
        if delay_us is None:
            delay_us = retry_delay_us(task, run.own_tries(index), seed, turn.max_retry_delay_us)
        row["retry_at"] = ended_at + delay_us
        event, sets = Event.RETRY, ("end_date", "retry_at")
    if not turn.move(event, [row], sets=sets, adds=("run_us",), guards=guard[:1], reason=reason):
        return False
    if held_dispatch:
        turn.let_go(run, index)
    else:
        turn.give_back(run, index)
    # What a failed try left is for nobody: not for the next try, nor for tasks downstream (S16).
    inbox.clear_xcoms(turn.tx, [ti_id])
    if retry:
        run.board.settle(index, State.UP_FOR_RETRY)
        run.retries_at[index] = row["retry_at"]
        turn.book.alarm(Alarm(row["retry_at"], run.key, ti_id, None))
    else:
        run.board.settle(index, State.FAILED)
        if run.board.plan.dag.fail_fast and not task.teardown:
            turn.failing.append(run)
    state = State.UP_FOR_RETRY if retry else State.FAILED
    turn.ended[run.dag_id, task.task_id, str(state)] += 1
    task_ended(turn, run, index, state, started_at=started_at, ended_at=ended_at, error=reason)
    turn.touch(run)
    return True


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
