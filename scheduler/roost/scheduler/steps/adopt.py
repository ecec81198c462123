"""Take unfinished runs that nobody decides, and read again those that others edited."""

from __future__ import annotations

from roost.models.queries import runs
from roost.models.queries.runs import InstanceRow, RunRow
from roost.models.states import IN_FLIGHT, Event, RunState, State
from roost.scheduler.book import ActiveRun, Alarm, Version
from roost.scheduler.steps.deadlines import note_deadlines
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
    note_deadlines(turn, [(row, version_of(turn, row.version_id)) for row in rows])


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
    if run.timeout_at is not None:
        alarms.append(Alarm(run.timeout_at, row.id, 0, None))
    turn.book.add(run, alarms)
    for index in run.waiting:
        turn.line_up(run, index)
    turn.touch(run)
    _remove_unknown(turn, run, instances)
    if version.plan.dated and row.logical_date is not None:
        _leave_out(turn, run, row.logical_date)
    return run


def _remove_unknown(turn: Turn, run: ActiveRun, instances: list[InstanceRow]) -> None:
    """Remove what is not in the run's version of the DAG, unless it is in flight (S26)."""
    if not run.board.unknown:
        return
    unknown = set(run.board.unknown)
    gone = [i for i in instances if i.id in unknown and i.state not in IN_FLIGHT]
    rows = [{"id": i.id, "end_date": turn.now} for i in gone if i.state != State.REMOVED]
    turn.move(Event.REMOVE, rows, sets=("end_date",), reason="its task is not in the DAG any more")


def _leave_out(turn: Turn, run: ActiveRun, date: int) -> None:
    """Skip the tasks whose own ``start_date`` or ``end_date`` leaves this logical date out."""
    board = run.board
    tasks = [(i, task) for i, task in enumerate(board.tasks) if board.states[i] == State.NONE]
    early = [i for i, t in tasks if t.start_date is not None and date < t.start_date]
    late = [i for i, t in tasks if t.end_date is not None and date > t.end_date]
    for indices, reason in (
        (early, "its start_date is after the logical date"),
        (late, "its end_date is before the logical date"),
    ):
        rows = [{"id": board.ti_ids[i], "end_date": turn.now} for i in board.force_skip(indices)]
        if len(turn.move(Event.SKIP, rows, sets=("end_date",), reason=reason)) < len(rows):
            turn.doubt(run)
