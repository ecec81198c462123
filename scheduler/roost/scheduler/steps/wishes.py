"""Do to a queued or running task instance what a user wished, once its dispatch has ended.

A wish stands on the dispatch (see :mod:`roost.models.state_edits`). It wins over whatever the
dispatch's outcome says: the user has seen the task run and wants something else of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roost.models.queries import inbox
from roost.models.state_edits import CLEARED, MARK, MARKED
from roost.models.states import Event, State
from roost.scheduler.steps.cutting import ENDINGS
from roost.scheduler.steps.deferral import kill_deferrals
from roost.scheduler.steps.ending import BY_DISPATCH, Batch, Ended
from roost.scheduler.turn import Turn
from roost.support.wire import Outcome

__all__ = ["grant_wishes", "take_back"]

_REASON = "as a user wished"


def take_back(turn: Turn) -> None:
    """End the dispatches with a wish that no worker has claimed; they are settled next.

    What a worker has claimed its worker ends: it is rung by whoever wishes.
    """
    outcome = Outcome("lost", started_at=turn.now, ended_at=turn.now, error=_REASON)
    inbox.end_unclaimed_wishes(turn.tx, turn.job_id, msgspec.json.encode(outcome).decode())


def grant_wishes(turn: Turn, items: list[Ended]) -> None:
    """Move task instances whose dispatches have ended with a wish."""
    cleared = Batch(Event.CLEAR, sets=("first_try", *CLEARED), guards=BY_DISPATCH)
    marked: dict[State, Batch] = {}
    kill_deferrals(turn, [item for item in items if item.run.wish not in ENDINGS])
    for item in items:
        ti_id, wish = item.dispatch.ti_id, item.dispatch.wish
        row: dict[str, Any] = {"if_dispatch_id": item.dispatch.id}
        if wish == "clear":
            row |= {"first_try": item.run.tries[item.task], **CLEARED}
            cleared.add(ti_id, row, _cleared(turn, item), _REASON)
        else:
            row |= {"end_date": item.outcome.ended_at, **MARKED}
            state = State(str(wish))
            reason = ENDINGS.get(item.run.wish or "", _REASON)
            if state not in marked:
                sets = ("end_date", *MARKED)
                marked[state] = Batch(MARK[state], sets=sets, guards=BY_DISPATCH)
            marked[state].add(ti_id, row, _marked(turn, item, state), reason)
    cleared.flush(turn)
    for batch in marked.values():
        batch.flush(turn)


def _cleared(turn: Turn, item: Ended) -> Callable[[], None]:
    def then() -> None:
        run, index = item.run, item.task
        turn.let_go(run, index)
        inbox.clear_xcoms(turn.tx, [item.dispatch.ti_id])
        run.begin_anew(index)
        run.board.settle(index, State.NONE)
        if run.board.plan.past:
            turn.book.mindful.add(run)  # what held it back at first may do so again
        turn.touch(run)

    return then


def _marked(turn: Turn, item: Ended, state: State) -> Callable[[], None]:
    def then() -> None:
        run, index = item.run, item.task
        turn.let_go(run, index)
        run.resumed.discard(index)
        run.board.settle(index, state)
        turn.ended[run.dag_id, run.board.tasks[index].task_id, str(state)] += 1
        turn.touch(run)

    return then
