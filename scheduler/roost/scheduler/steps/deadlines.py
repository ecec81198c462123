"""Deadlines of runs: stored when a run is seen first, an alarm each, told of once (H22)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.models.queries import deadlines
from roost.models.queries.runs import RunRow
from roost.scheduler.book import ActiveRun, Alarm, Version
from roost.scheduler.turn import Turn
from roost.support.wire import CallbackSpec

__all__ = ["DEADLINE", "meet_deadlines", "miss_deadlines", "note_deadlines"]

DEADLINE = -1
"""In the place of an alarm's task instance."""


def note_deadlines(turn: Turn, found: Iterable[tuple[RunRow, Version]]) -> None:
    """Store the deadlines of runs that were taken up, and set their alarms."""
    rows = [
        {
            "run": row.id,
            "position": position,
            "reference": one.reference,
            "interval_us": one.interval_us,
            "moment": one.at,
        }
        for row, version in found
        for position, one in enumerate(version.plan.dag.deadlines)
    ]
    if not rows:
        return
    turn.deadlines["created"] += deadlines.create(turn.tx, rows)
    for one in deadlines.pending(turn.tx, [int(row["run"] or 0) for row in rows]):
        turn.book.alarm(Alarm(one.due_at, one.dag_run_id, DEADLINE, None))


def miss_deadlines(turn: Turn, run_keys: Iterable[int]) -> None:
    """Have the callbacks run of what is due in runs that have not ended."""
    keys = list(run_keys)
    if not keys:
        return
    for one in deadlines.miss(turn.tx, keys, turn.now):
        turn.deadlines["missed"] += 1
        spec = CallbackSpec(
            kind="deadline",
            name="deadline",
            state="running" if one.dag_run_id in turn.book.runs else "queued",
            reason="the deadline was missed",
            position=one.position,
            detail=msgspec.Raw(msgspec.json.encode({"due_at": one.due_at})),
        )
        turn.call_back(one.dag_run_id, spec)


def meet_deadlines(turn: Turn, ended: Iterable[ActiveRun]) -> None:
    """These runs ended: what was not missed by now never will be."""
    keys = [run.key for run in ended if run.board.plan.dag.deadlines]
    if keys:
        turn.deadlines["not_missed"] += deadlines.meet(turn.tx, keys, turn.now)
