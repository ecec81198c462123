"""Do what is due: wake retries, end waits that took too long, and runs that do (H11, H13, H22)."""

from __future__ import annotations

from collections.abc import Iterable

from roost.models.queries import inbox
from roost.models.states import State
from roost.scheduler.book import Alarm
from roost.scheduler.steps.cutting import time_out
from roost.scheduler.steps.deadlines import DEADLINE, miss_deadlines
from roost.scheduler.steps.end_event import WaitsOver
from roost.scheduler.steps.ending import schedule
from roost.scheduler.turn import Turn
from roost.support.clock import SECOND

__all__ = ["settle_alarms"]

_RUN = 0  # in the place of an alarm's task instance
_MOST = 500  # alarms that a turn settles, to be done soon


def settle_alarms(turn: Turn) -> None:
    """Settle the alarms that are due, in slices: what is left is due in the next turn."""
    due = turn.book.due_alarms(turn.now, _MOST)
    turn.more |= len(due) == _MOST
    waits: dict[int, Alarm] = {}  # by task instance
    for alarm in due:
        if alarm.trigger_id is not None:
            # Of its deferrals only the last can go on; what was set for another means nothing.
            newest = waits.get(alarm.ti_id, alarm).trigger_id or 0
            if alarm.trigger_id >= newest:
                waits[alarm.ti_id] = alarm
        elif alarm.ti_id not in (DEADLINE, _RUN):
            _try_again(turn, alarm)
    _end_waits(turn, waits.values())
    miss_deadlines(turn, [alarm.run_key for alarm in due if alarm.ti_id == DEADLINE])
    time_out(turn, [alarm.run_key for alarm in due if alarm.ti_id == _RUN])


def _try_again(turn: Turn, alarm: Alarm) -> None:
    run = turn.book.runs.get(alarm.run_key)
    index = None if run is None else run.board.index_of(alarm.ti_id)
    if run is None or index is None:
        return
    if run.board.states[index] == State.UP_FOR_RETRY and run.retries_at.get(index) == alarm.due_at:
        run.board.settle(index, State.SCHEDULED)
        schedule(turn, run, index)


def _end_waits(turn: Turn, alarms: Iterable[Alarm]) -> None:
    """No event came in time: try again, fail, or skip, as each task asked (D6: a timer)."""
    waits = {alarm.trigger_id: alarm for alarm in alarms if alarm.trigger_id is not None}
    has_event = inbox.lock_triggers(turn.tx, list(waits))
    over = WaitsOver(turn)
    timed_out: list[int] = []
    for trigger_id, alarm in waits.items():
        run = turn.book.runs.get(alarm.run_key)
        index = None if run is None else run.board.index_of(alarm.ti_id)
        if run is None or index is None:
            continue
        if has_event.get(trigger_id):
            # Stored in time, though this turn has not read it. Behind those that are due: many
            # such would keep these from their turn.
            turn.book.alarm(alarm._replace(due_at=turn.now + SECOND))
            turn.more = True
            continue
        timed_out.append(trigger_id)
        reason = f"the trigger timed out: no event of trigger {trigger_id} in time"
        if alarm.on_timeout == "skip":
            over.end(run, index, trigger_id, State.SKIPPED, reason)
        else:
            retryable = alarm.on_timeout == "retry"
            over.fail(run, index, trigger_id, reason, retryable=retryable)
    over.flush()
    inbox.delete_triggers(turn.tx, timed_out)
    turn.deferred |= bool(timed_out)  # what they still do, and hold, ends at once
