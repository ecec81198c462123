"""When a DAG runs: from a stored timetable to data intervals (S19-S21, H12, H14, H15).

A run covers a data interval ``[start, end)``, starts when the interval is over (``run_after`` is
its end) and has the interval's start as logical date. Everything here is a pure function of its
arguments; moments are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from roost.dag.cron import Cron, check_cron, check_timezone, cron_of
from roost.dag.model import SerializedDag, SerializedTimetable, Upcoming
from roost.dag.moments import AnyOf, Given, Grid, Moments, first_of
from roost.dag.schedule import Timetable
from roost.exceptions import CronError
from roost.support.clock import SECOND, duration_us

__all__ = [
    "PRESETS",
    "DagRunInfo",
    "Interval",
    "following_run",
    "infer_manual_interval",
    "listed_runs",
    "next_run",
    "parse_schedule",
]

PRESETS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Interval(NamedTuple):
    """A data interval ``[start, end)``; of no length for runs that cover no time."""

    start: int
    end: int


class DagRunInfo(NamedTuple):
    """One scheduled run.

    Attributes:
        interval_start: start of the data interval.
        interval_end: its end.
        run_after: the earliest moment at which the run may be created.
        logical_date: equal to ``interval_start`` (H15).
    """

    interval_start: int
    interval_end: int
    run_after: int
    logical_date: int


def parse_schedule(
    schedule: str | timedelta | Timetable | SerializedTimetable | None, timezone: str = "UTC"
) -> SerializedTimetable:
    """What ``DAG(schedule=…)`` means.

    Args:
        schedule: a cron expression (five fields, or six with seconds last), a preset
            (``PRESETS``, ``@once``, ``@continuous``), a timedelta of at least a second, None for
            runs only by hand, or a Timetable; a serialized one is returned as it is.
        timezone: IANA name of the zone in which a cron is read.

    Raises:
        CronError: one line, with the remedy.
    """
    if isinstance(schedule, SerializedTimetable):
        return schedule
    check_timezone(timezone)
    if isinstance(schedule, Timetable):
        return schedule.serialized(timezone)
    if schedule is None:
        return SerializedTimetable(kind="null", timezone=timezone, summary="None")
    if isinstance(schedule, timedelta):
        step = duration_us(schedule)
        if step < SECOND:
            raise CronError(f"schedule {schedule!r} is less than a second; give a longer timedelta")
        return SerializedTimetable(
            kind="delta", delta_us=step, timezone=timezone, summary=str(schedule)
        )
    if not isinstance(schedule, str):
        raise CronError(
            f"schedule is {type(schedule)}; "
            "give a cron expression, a preset such as '@daily', a timedelta, a Timetable or None"
        )
    return _from_text(schedule, timezone)


def _from_text(schedule: str, timezone: str) -> SerializedTimetable:
    name = schedule.strip().lower()
    if name == "@once":
        return SerializedTimetable(kind="once", timezone=timezone, summary=name)
    if name == "@continuous":
        return SerializedTimetable(kind="continuous", timezone=timezone, summary=name)
    if name.startswith("@"):
        if name not in PRESETS:
            known = ", ".join([*PRESETS, "@once", "@continuous"])
            raise CronError(f"unknown preset {schedule[:80]!r}; use one of {known}")
        return SerializedTimetable(kind="cron", cron=PRESETS[name], timezone=timezone, summary=name)
    cron = check_cron(schedule)
    return SerializedTimetable(kind="cron", cron=cron, timezone=timezone, summary=schedule.strip())


def next_run(
    timetable: SerializedTimetable,
    last_interval_end_us: int | None,
    start_us: int | None,
    end_us: int | None,
    catchup: bool,
    now_us: int,
) -> DagRunInfo | None:
    """The scheduled run that follows the last one, or None if there is none to come.

    The result's ``run_after`` may lie in the future. With ``catchup=False`` it depends on
    ``now_us``, so ask again when it is due, and create what is answered then: after a pause that
    is the newest missed interval only.

    Args:
        last_interval_end_us: end of the newest scheduled run's interval, None before the first.
        start_us: the DAG's start_date; None: from the newest complete interval on. A cron's
            first interval starts at the first firing at or after it, a delta's exactly at it.
        end_us: the DAG's end_date: no logical date is later.
        catchup: every interval since the start, rather than only the newest missed one.
        now_us: the current moment.
    """
    if timetable.kind in ("null", "custom"):
        return None
    if timetable.kind in ("cron_trigger", "delta_trigger", "events"):
        bound = max((b for b in (last_interval_end_us, start_us) if b is not None), default=None)
        moments = _moments_of(timetable, bound)
        if timetable.kind == "events" and bound is None:
            start_us = timetable.moments[0]  # all of them are wanted, not those since now
        at = first_of(moments, last_interval_end_us, start_us, catchup, now_us)
        if at is None:
            return None
        first = at - timetable.interval_us
        return None if end_us is not None and first > end_us else DagRunInfo(first, at, at, first)
    if timetable.kind == "once":
        if last_interval_end_us is not None:
            return None
        moment = now_us if start_us is None else start_us
        interval: Interval | None = Interval(moment, moment)
    elif timetable.kind == "continuous":
        interval = _continuous(last_interval_end_us, start_us, now_us)
    elif timetable.kind == "delta":
        assert timetable.delta_us is not None  # noqa: S101 - parse_schedule sets it
        interval = _delta(timetable.delta_us, last_interval_end_us, start_us, catchup, now_us)
    else:
        interval = _cron(_cron_for(timetable), last_interval_end_us, start_us, catchup, now_us)
    if interval is None or (end_us is not None and interval.start > end_us):
        return None
    return DagRunInfo(interval.start, interval.end, interval.end, interval.start)


def infer_manual_interval(timetable: SerializedTimetable, run_after_us: int) -> Interval:
    """The data interval of a run started by hand: the newest that is over at ``run_after_us``.

    For a cron the last complete interval, for a delta the step that ends at ``run_after_us``,
    for a trigger the ``interval`` that ends there; for anything else, timetables of the user's
    own included, the moment itself.
    """
    if timetable.kind == "events" and timetable.restrict_to_events:
        dates = Given(timetable.moments)
        at = dates.before(run_after_us + 1) or timetable.moments[0]
        return Interval(at, at)
    if timetable.interval_us:
        return Interval(run_after_us - timetable.interval_us, run_after_us)
    if timetable.kind == "cron":
        cron = _cron_for(timetable)
        end = cron.at_or_before(run_after_us)
        start = None if end is None else cron.before(end)
        if start is not None and end is not None:
            return Interval(start, end)
    elif timetable.kind == "delta" and timetable.delta_us is not None:
        return Interval(run_after_us - timetable.delta_us, run_after_us)
    return Interval(run_after_us, run_after_us)


def following_run(
    dag: SerializedDag, upcoming: Upcoming | None, last: tuple[int, int] | None, now_us: int
) -> DagRunInfo | None:
    """The scheduled run of ``dag`` that follows the last one; see :func:`next_run`.

    Args:
        dag: its current version.
        upcoming: what its timetable said, if that is the user's own.
        last: data interval of the newest scheduled run, None before the first.
        now_us: the current moment.
    """
    if dag.timetable.kind != "custom":
        end = None if last is None else last[1]
        return next_run(dag.timetable, end, dag.start_date, dag.end_date, dag.catchup, now_us)
    left = listed_runs(upcoming, last)
    if not left:
        return None
    due = [run for run in left if run[2] <= now_us]
    start, end, run_after = due[-1] if due and not dag.catchup else left[0]
    return DagRunInfo(start, end, run_after, start)


def listed_runs(
    upcoming: Upcoming | None, last: tuple[int, int] | None
) -> list[tuple[int, int, int]]:
    """What is left of a list of coming runs after the newest that there has been."""
    runs = upcoming.runs if upcoming is not None else []
    return [run for run in runs if last is None or run[0] > last[0]]


def _moments_of(timetable: SerializedTimetable, anchor: int | None) -> Moments:
    if timetable.kind == "events":
        return Given(timetable.moments)
    if timetable.delta_us is not None:
        return Grid(anchor or 0, timetable.delta_us)
    return AnyOf([cron_of(cron, timetable.timezone) for cron in timetable.crons])


def _cron_for(timetable: SerializedTimetable) -> Cron:
    assert timetable.cron is not None  # noqa: S101 - parse_schedule sets it
    return cron_of(timetable.cron, timetable.timezone)


def _cron(
    cron: Cron, last: int | None, start: int | None, catchup: bool, now: int
) -> Interval | None:
    # Rounding up makes the new start differ from every earlier one, even after the user changed
    # the expression: a logical date is never used twice.
    bounds = [cron.at_or_after(bound) for bound in (last, start) if bound is not None]
    if not catchup or not bounds:
        end = cron.at_or_before(now)
        newest = None if end is None else cron.before(end)
        if newest is not None:
            bounds.append(newest)
    first: int | None = None
    for bound in bounds:
        if bound is None:
            return None  # nothing fires after the last run or the start date
        first = bound if first is None else max(first, bound)
    if first is None:
        first = cron.after(now)
    end = None if first is None else cron.after(first)
    return None if first is None or end is None else Interval(first, end)


def _delta(step: int, last: int | None, start: int | None, catchup: bool, now: int) -> Interval:
    # The grid of intervals hangs on the last one, else on the start date, else on the epoch.
    first = start if last is None or (start is not None and start > last) else last
    anchor = 0 if first is None else first
    newest = anchor + ((now - anchor) // step - 1) * step
    if first is None or (not catchup and newest > first):
        first = newest
    return Interval(first, first + step)


def _continuous(last: int | None, start: int | None, now: int) -> Interval:
    # Back to back, each ending now. Never empty, so that no two have the same logical date.
    bounds = [bound for bound in (last, start) if bound is not None]
    first = max(bounds) if bounds else now - 1
    return Interval(first, max(first + 1, now))
