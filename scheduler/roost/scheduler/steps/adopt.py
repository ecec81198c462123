"""Take unfinished runs that nobody decides, and read again those that others edited."""

from __future__ import annotations

from roost.models.queries import runs
from roost.models.queries.runs import InstanceRow, RunRow
from roost.models.states import RunState, State
from roost.scheduler.book import ActiveRun, Alarm, Version
from roost.scheduler.turn import Turn

__all__ = ["adopt_runs", "load_run", "version_of"]

_BATCH = 200


def adopt_runs(turn: Turn) -> None:
    """Claim runs for this scheduler; a run is claimed by exactly one (H1)."""
    rows = runs.adopt_runs(turn.tx, turn.job_id, _BATCH)
    if not rows:
        return
    turn.more |= len(rows) == _BATCH
    # Another scheduler may have handed out higher dispatch ids in these runs (S2).
    turn.memory.ids.void()
    for row in rows:
        turn.book.drop(row.id)
        if row.state == RunState.QUEUED:
            turn.book.queued[row.id] = row
            turn.memory.may_start = True
        else:
            load_run(turn, row, runs.instances(turn.tx, row.id))


def version_of(turn: Turn, version_id: int) -> Version:
    """The compiled version of a DAG, from memory or from the database."""
    known = turn.book.known_version(version_id)
    return known or turn.book.version(runs.version(turn.tx, version_id))


def load_run(turn: Turn, row: RunRow, instances: list[InstanceRow]) -> ActiveRun:
    """Put a running run into the book, with everything that waits in it."""
    version = version_of(turn, row.version_id)
    run = ActiveRun(row, version, instances, turn.memory.holding_pools)
    run.paused = run.dag_id in turn.memory.paused
    alarms = [
        Alarm(i.retry_at, row.id, i.id, None)
        for i in instances
        if i.state == State.UP_FOR_RETRY and i.retry_at is not None
    ]
    if any(i.state == State.DEFERRED for i in instances):
        alarms += [
            Alarm(found.timeout_at, row.id, found.ti_id, found.trigger_id, found.on_timeout)
            for found in runs.trigger_timeouts(turn.tx, row.id)
        ]
    turn.book.add(run, alarms)
    for index in run.waiting:
        turn.memory.ready.add(run, index)
    turn.touch(run)
    return run
