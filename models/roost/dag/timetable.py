"""When a DAG runs: from a stored timetable to data intervals (S19-S21, H12, H14, H15)."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from roost.dag.model import SerializedTimetable

__all__ = ["DagRunInfo", "Interval", "infer_manual_interval", "next_run", "parse_schedule"]


class Interval(NamedTuple):
    """A data interval ``[start, end)`` in microseconds since the epoch."""

    start: int
    end: int


class DagRunInfo(NamedTuple):
    """One scheduled run; moments in microseconds since the epoch, UTC.

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


def parse_schedule(schedule: str | timedelta | None, timezone: str = "UTC") -> SerializedTimetable:
    """What ``DAG(schedule=…)`` means; raises CronError."""
    raise NotImplementedError


def next_run(
    timetable: SerializedTimetable,
    last_interval_end_us: int | None,
    start_us: int | None,
    end_us: int | None,
    catchup: bool,
    now_us: int,
) -> DagRunInfo | None:
    """The next scheduled run after the last one; ``run_after`` may lie in the future."""
    raise NotImplementedError


def infer_manual_interval(timetable: SerializedTimetable, run_after_us: int) -> Interval:
    """The data interval of a manual run: the newest one that is complete at ``run_after_us``."""
    raise NotImplementedError
