"""Fire the triggers that wait for runs, or for tasks in them (TriggerDagRun, SubDag, ExternalTask).

They are looked at when something of the run they wait for has changed in this turn, when they are
made, and in a sweep now and then: another scheduler, or a user, may have ended the run.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.dag.runwait import RunWait, keys_of_run, verdict
from roost.models.queries import awaited
from roost.models.queries.awaited import Fired, Target, Waiting
from roost.scheduler.turn import SWEEP_US, Turn
from roost.support.clock import SECOND
from roost.support.task_requests import RunRecord

__all__ = ["fire_awaited"]

_PAGE = 1000
_PAGE_US = SECOND // 2
_decode = msgspec.json.Decoder(RunWait).decode


def fire_awaited(turn: Turn) -> None:
    """Write the events of triggers whose wait is over; they are settled by the next turn."""
    keys = {
        key
        for run in turn.touched.values()
        for key in keys_of_run(run.dag_id, run.run_id, run.logical_date)
    }
    waiting = {one.id: one for one in awaited.waiting_for(turn.tx, sorted(keys), turn.awaiting)}
    waiting.update((one.id, one) for one in _sweep(turn))
    turn.sweep_at = turn.memory.sweep_at
    if not waiting:
        return
    fired = awaited.fire(turn.tx, list(_events(turn, waiting.values())), turn.now)
    for trigger_id in fired:
        if waiting[trigger_id].dag_run_id in turn.book.runs:
            turn.more = True
        else:
            turn.told_others = True


def _sweep(turn: Turn) -> list[Waiting]:
    """Some of all, in turns, so that each is looked at now and then."""
    memory = turn.memory
    if not memory.is_sweep_due(turn.now):
        return []
    page = awaited.waiting_after(turn.tx, memory.swept, _PAGE)
    full = len(page) == _PAGE
    memory.swept = page[-1].id if full else 0
    memory.sweep_at = turn.now + (_PAGE_US if full else SWEEP_US)
    return page


def _events(turn: Turn, waiting: Iterable[Waiting]) -> Iterable[Fired]:
    waits: dict[int, RunWait] = {}
    for one in waiting:
        try:
            waits[one.id] = _decode(one.kwargs)
        except msgspec.DecodeError as error:
            yield Fired(one.id, "failed", error=f"the trigger cannot be read: {error}")
    runs = awaited.runs_of(turn.tx, [t for wait in waits.values() for t in _targets(wait)])
    for trigger_id, wait in waits.items():
        found = runs.get(wait.dag_id, [])
        status = verdict(wait, found)
        if status is not None:
            payload = {"status": status, "states": _states(wait, found)}
            yield Fired(trigger_id, "fired", msgspec.json.encode(payload).decode())


def _targets(wait: RunWait) -> Iterable[Target]:
    tasks = tuple(wait.task_ids or ())
    if wait.run_id is not None:
        yield Target(wait.dag_id, run_id=wait.run_id, task_ids=tasks)
    else:
        for date in wait.logical_dates:
            yield Target(wait.dag_id, logical_date=date, task_ids=tasks)


def _states(wait: RunWait, runs: Iterable[RunRecord]) -> dict[str, str]:
    return {
        run.run_id: run.state
        for run in runs
        if run.run_id == wait.run_id or run.logical_date in wait.logical_dates
    }
