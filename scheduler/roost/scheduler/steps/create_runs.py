"""Create the scheduled runs that are due and start queued ones while their DAG has room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from roost.dag.model import SerializedDag, Upcoming
from roost.dag.timetable import DagRunInfo, following_run
from roost.models.queries import dags, runs
from roost.models.queries.dags import DueDag
from roost.models.queries.runs import InstanceRow, RunRow
from roost.models.states import RunEvent, State
from roost.models.transitions import NewRun, create_run, create_task_instances, move_runs
from roost.scheduler.steps.adopt import adopt_runs, load_run, version_of
from roost.scheduler.steps.rooms import Rooms, count_runs
from roost.scheduler.turn import Turn
from roost.support.clock import SECOND, from_us

__all__ = ["create_runs", "start_runs"]

_BATCH = 100
_STARTS = 100
_LOOK_AGAIN_US = 2 * SECOND


def create_runs(turn: Turn) -> None:
    """Create every scheduled run that is due, each interval once (S21, S12 of the invariants).

    The run and the DAG's next moment are written together, and an interval has at most one
    scheduled run by a unique index: neither a crash nor a second scheduler doubles or loses one.
    """
    due = dags.due_dags(turn.tx, turn.now, _BATCH)
    created = sum(_create_due(turn, dag) for dag in due)
    turn.blocked = not created
    turn.more |= created > 0
    if created:
        adopt_runs(turn)


def _create_due(turn: Turn, due: DueDag) -> int:
    dag = msgspec.json.decode(due.data, type=SerializedDag)
    listed = None
    if dag.timetable.kind == "custom":
        listed = msgspec.json.decode(due.upcoming, type=Upcoming)
    last = dags.last_interval(turn.tx, due.dag_id, listed=listed is not None)
    # Asked anew: without catchup the answer is the newest interval missed, not the one foreseen.
    info = _next_missing(turn, dag, listed, last)
    creates = info is not None and info.run_after <= turn.now
    upcoming = _after(dag, listed, info, turn.now) if info and creates else info
    advanced = dags.plan_next(
        turn.tx,
        due.dag_id,
        was_due=due.next_run_after,
        next_run_after=upcoming.run_after if upcoming else None,
        next_interval_start=upcoming.interval_start if upcoming else None,
        next_interval_end=upcoming.interval_end if upcoming else None,
    )
    if not advanced or info is None or not creates:
        return 0
    run = NewRun(
        dag_id=due.dag_id,
        run_id=f"scheduled__{from_us(info.logical_date).isoformat()}",
        run_type="scheduled",
        version_id=due.version_id,
        logical_date=info.logical_date,
        interval_start=info.interval_start,
        interval_end=info.interval_end,
        run_after=info.run_after,
    )
    return int(create_run(turn.tx, run, actor=turn.actor) is not None)


def _next_missing(
    turn: Turn, dag: SerializedDag, listed: Upcoming | None, last: tuple[int, int] | None
) -> DagRunInfo | None:
    """The next scheduled run whose interval no backfill has seen to already (H21)."""
    info = following_run(dag, listed, last, turn.now)
    if info is None or info.run_after > turn.now:
        return info
    taken = dags.backfilled_starts(turn.tx, dag.dag_id, info.interval_start)
    while info is not None and info.interval_start in taken and info.run_after <= turn.now:
        info = _after(dag, listed, info, turn.now)
    return info


def _after(
    dag: SerializedDag, listed: Upcoming | None, info: DagRunInfo, now: int
) -> DagRunInfo | None:
    return following_run(dag, listed, (info.interval_start, info.interval_end), now)


def start_runs(turn: Turn) -> None:
    """Start queued runs, earliest first, while fewer than ``max_active_runs`` are active (S9).

    Those of a backfill have its limit and its order instead (H21).
    """
    memory = turn.memory
    if not memory.may_start and (memory.start_at is None or turn.now < memory.start_at):
        return
    memory.may_start = False
    waiting = [row for row in turn.book.queued.values() if row.dag_id not in memory.paused]
    candidates = [row for row in waiting if row.run_after <= turn.now]
    memory.start_at = min((r.run_after for r in waiting if r.run_after > turn.now), default=None)
    if not candidates:
        return
    rooms = Rooms(turn, candidates)
    starting: list[RunRow] = []
    for row in sorted(candidates, key=rooms.order):
        if len(starting) == _STARTS:
            turn.more = memory.may_start = True
            break
        if rooms.take(row):
            starting.append(row)
    if len(starting) < len(candidates):
        # Another scheduler, or a new version of the DAG, may make room without telling us.
        again = turn.now + _LOOK_AGAIN_US
        memory.start_at = again if memory.start_at is None else min(again, memory.start_at)
    _start(turn, starting)


def _start(turn: Turn, starting: list[RunRow]) -> None:
    for row in starting:
        turn.book.queued.pop(row.id)
    moved = set(move_runs(turn.tx, RunEvent.START, [row.id for row in starting], actor=turn.actor))
    rows = [row for row in starting if row.id in moved]
    count_runs(turn, rows, 1)
    instances: dict[int, list[InstanceRow]] = {row.id: [] for row in rows}
    known = {row.id: runs.instances(turn.tx, row.id) for row in rows if row.began}
    new = [t for row in rows for t in _instances(turn, row, known.get(row.id, ()))]
    created = create_task_instances(turn.tx, new)
    for ti_id, run_key, task_id, map_index in created:
        instances[run_key].append(
            InstanceRow(ti_id, task_id, map_index, State.NONE, 0, 0, None, None, None, None)
        )
    for row in rows:
        have = [*known.get(row.id, ()), *instances[row.id]]
        load_run(turn, row._replace(start_date=turn.now), have)


def _instances(turn: Turn, row: RunRow, known: Iterable[InstanceRow]) -> list[dict[str, Any]]:
    """What the run's version has and the run lacks: all of it, unless a user cleared the run."""
    plan = version_of(turn, row.version_id).plan
    there = {
        one.task_id
        for one in known
        if one.map_index == -1 or plan.index.get(one.task_id) in plan.mapped
    }
    return [
        {
            "dag_run_id": row.id,
            "task_id": task.task_id,
            "map_index": -1,
            "pool": task.pool,
            "pool_slots": task.pool_slots,
            "queue": task.queue,
            "priority_weight": weight,
        }
        for task, weight in zip(plan.tasks, plan.weights, strict=True)
        if task.task_id not in there
    ]
