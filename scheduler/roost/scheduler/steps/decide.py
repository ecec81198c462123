"""Decide what follows in the runs that changed: run, skip, or fail with the upstream."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from roost.models.queries import backfills
from roost.models.states import Event, RunEvent, State
from roost.models.transitions import move_runs
from roost.scheduler.book import ActiveRun
from roost.scheduler.steps.assets import produce
from roost.scheduler.steps.callbacks import run_ended
from roost.scheduler.steps.cutting import ENDINGS, fail_fast
from roost.scheduler.steps.deadlines import meet_deadlines
from roost.scheduler.steps.ending import schedule
from roost.scheduler.steps.expand import expand
from roost.scheduler.steps.pausing import lock_failing, pause_failing
from roost.scheduler.steps.rooms import count_runs, lock_room
from roost.scheduler.turn import FinishedRun, Turn

__all__ = ["decide", "finish_runs"]

_Rows = list[tuple[ActiveRun, dict[str, Any]]]
_BY_WISH: dict[str, tuple[RunEvent, str]] = {
    "success": (RunEvent.SUCCEED, "marked by a user"),
    "failed": (RunEvent.FAIL, "marked by a user"),
    **{wish: (RunEvent.FAIL, reason) for wish, reason in ENDINGS.items()},
}
_STUCK = "deadlocked: nothing can run and nothing is awaited"
_COMPLETED = ("try_number", "scheduled_at", "start_date", "end_date")


def decide(turn: Turn) -> None:
    """Evaluate the trigger rules of what changed, until nothing follows any more (S77-S88).

    An operator without a body completes right here (H27), and what follows it is decided in the
    same turn. A task that cannot be expanded fails right here, too, and may end its run (H12).
    """
    _decide(turn)
    if turn.failing:
        fail_fast(turn)
        _decide(turn)


def _decide(turn: Turn) -> None:
    skips: _Rows = []
    upstream_fails: _Rows = []
    completed: _Rows = []
    for run in list(turn.touched.values()):
        while True:
            decisions = run.board.decide()
            ids = run.board.ti_ids
            skips += [(run, {"id": ids[i], "end_date": turn.now}) for i in decisions.skip]
            upstream_fails += [
                (run, {"id": ids[i], "end_date": turn.now}) for i in decisions.upstream_failed
            ]
            empty = [i for i in decisions.run if run.board.empty[i]]
            for index in decisions.run:
                if not run.board.empty[index]:
                    schedule(turn, run, index)
            if decisions.expand:
                expand(turn, run, decisions.expand)
            completed += [(run, _complete(turn, run, index)) for index in empty]
            if run.doubted or not (empty or decisions.expand):
                break
    _write(turn, Event.SKIP, skips, reason="trigger rule")
    _write(turn, Event.UPSTREAM_FAIL, upstream_fails)
    _write(turn, (Event.SCHEDULE, Event.COMPLETE), completed, sets=_COMPLETED)


def _write(
    turn: Turn,
    events: Event | tuple[Event, ...],
    rows: _Rows,
    *,
    sets: tuple[str, ...] = ("end_date",),
    reason: str | None = None,
) -> None:
    moved = turn.move(events, [row for _, row in rows], sets=sets, reason=reason)
    for run, row in rows:
        if row["id"] not in moved:
            turn.doubt(run)


def _complete(turn: Turn, run: ActiveRun, index: int) -> dict[str, Any]:
    run.tries[index] += 1
    run.board.settle(index, State.SUCCESS)
    turn.ended[run.dag_id, run.board.tasks[index].task_id, str(State.SUCCESS)] += 1
    if run.board.tasks[index].outlets:
        produce(turn, run, index)
    return {
        "id": run.board.ti_ids[index],
        "try_number": run.tries[index],
        "scheduled_at": turn.now,
        "start_date": turn.now,
        "end_date": turn.now,
    }


def finish_runs(turn: Turn) -> None:
    """End runs whose task instances are all finished, and those that can never go on (H10)."""
    groups: dict[tuple[RunEvent, str | None], list[ActiveRun]] = defaultdict(list)
    for run in turn.touched.values():
        if not run.alive or run.doubted:
            continue
        outcome = run.board.outcome()
        if outcome is not None and run.wish is not None:
            groups[_BY_WISH[run.wish]].append(run)
        elif outcome is not None:
            event = RunEvent.SUCCEED if outcome == "success" else RunEvent.FAIL
            groups[event, None].append(run)
        elif not run.waiting and run.board.deadlocked():
            groups[RunEvent.FAIL, _STUCK].append(run)
    if not groups:
        return
    failing = [run for (event, _), g in groups.items() if event is RunEvent.FAIL for run in g]
    lock_failing(turn, failing)
    lock_room(turn, [run.dag_id for group in groups.values() for run in group])
    failed: list[ActiveRun] = []
    for (event, reason), group in groups.items():
        moved = _end(turn, event, group, reason)
        failed += moved if event is RunEvent.FAIL else []
    pause_failing(turn, failed)


def _end(
    turn: Turn, event: RunEvent, group: list[ActiveRun], reason: str | None
) -> list[ActiveRun]:
    moved = set(
        move_runs(turn.tx, event, [run.key for run in group], actor=turn.actor, reason=reason)
    )
    released = [run for run in group if run.key in moved]
    for run in group:
        turn.book.drop(run.key)
        if run.key in moved:
            took_us = 0 if run.started_at is None else turn.now - run.started_at
            succeeded = event is RunEvent.SUCCEED
            turn.finished.append(FinishedRun(run.dag_id, succeeded, took_us))
            run_ended(turn, run, succeeded=succeeded, stuck=reason == _STUCK)
    meet_deadlines(turn, released)
    count_runs(turn, released, -1)
    if filled := {run.backfill_id for run in released if run.backfill_id is not None}:
        backfills.close(turn.tx, filled)
    if released:
        dag_ids = {run.dag_id for run in released}
        turn.memory.may_start = True
        turn.more |= any(row.dag_id in dag_ids for row in turn.book.queued.values())
    return released
