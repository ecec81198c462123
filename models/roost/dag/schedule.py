"""Timetable: a schedule of one's own (H14, H15).

A subclass is evaluated where its DAG file is parsed, never in a daemon: the parser asks for the
runs that come next, and the scheduler creates them from that list.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, NamedTuple

from roost.dag.model import SerializedTimetable

__all__ = ["DagRunInfo", "DataInterval", "TimeRestriction", "Timetable"]


class DataInterval(NamedTuple):
    """The time that a run covers, from ``start`` up to ``end``."""

    start: datetime
    end: datetime

    @classmethod
    def exact(cls, at: datetime) -> DataInterval:
        """No time at all, at one moment."""
        return cls(at, at)


class TimeRestriction(NamedTuple):
    """What the DAG allows.

    Attributes:
        earliest: its start_date; no logical date is earlier.
        latest: its end_date; no logical date is later.
        catchup: whether runs are wanted whose moment has passed, rather than the newest of them.
    """

    earliest: datetime | None
    latest: datetime | None
    catchup: bool


class DagRunInfo(NamedTuple):
    """One run: the earliest moment at which it may be created, and the time that it covers."""

    run_after: datetime
    data_interval: DataInterval

    @property
    def logical_date(self) -> datetime:
        """The start of its data interval (H15)."""
        return self.data_interval.start

    @classmethod
    def exact(cls, at: datetime) -> DagRunInfo:
        """A run at a moment that covers no time."""
        return cls(at, DataInterval.exact(at))

    @classmethod
    def interval(cls, start: datetime, end: datetime) -> DagRunInfo:
        """A run that covers an interval and may be created when it is over."""
        return cls(end, DataInterval(start, end))


class Timetable:
    """When a DAG runs. Subclass it and write :meth:`next_dagrun_info`."""

    #: One line on what it does, for listings.
    description: ClassVar[str] = ""

    @property
    def summary(self) -> str:
        """What listings show as the schedule."""
        return type(self).__name__

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The run that follows one, or None when there is no further one.

        It has a later logical date and a later ``run_after`` than the one before, and gives the
        same for the same arguments: it is asked for many runs in advance, and again after that.

        Args:
            last_automated_data_interval: of the newest scheduled run; None before the first.
            restriction: what the DAG allows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no next_dagrun_info() method")

    def infer_manual_data_interval(self, *, run_after: datetime) -> DataInterval:
        """What a run started by hand at ``run_after`` covers: nothing, at that moment."""
        return DataInterval.exact(run_after)

    def serialized(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told of it.

        Args:
            timezone: IANA name of the DAG's zone.
        """
        return SerializedTimetable(kind="custom", timezone=timezone, summary=str(self.summary))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary}>"
