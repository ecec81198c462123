"""Timetables that ``DAG(schedule=…)`` takes besides cron strings and timedeltas (H14, H15).

Those that trigger at a moment have their run start then and cover no time, or the ``interval``
before it; those of data intervals cover the time from one moment to the next and start when it is
over. docs/timetables.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo

from roost.dag.cron import check_cron, check_timezone
from roost.dag.model import SerializedTimetable
from roost.dag.schedule import DagRunInfo, DataInterval, TimeRestriction, Timetable
from roost.dag.timetable import infer_manual_interval, next_run, parse_schedule
from roost.exceptions import CronError
from roost.support.clock import SECOND, duration_us, from_us, now_us, to_us

__all__ = [
    "ContinuousTimetable",
    "CronDataIntervalTimetable",
    "CronTriggerTimetable",
    "DagRunInfo",
    "DataInterval",
    "DeltaDataIntervalTimetable",
    "DeltaTriggerTimetable",
    "EventsTimetable",
    "MultipleCronTriggerTimetable",
    "NullTimetable",
    "OnceTimetable",
    "TimeRestriction",
    "Timetable",
]


class _Known(Timetable):
    """A timetable that the scheduler evaluates itself."""

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        raise NotImplementedError

    def serialized(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told; a subclass that decides for itself is one's own."""
        kind = type(self)
        if kind.next_dagrun_info is not _Known.next_dagrun_info:
            return super().serialized(timezone)
        return self.table(timezone)

    @property
    def summary(self) -> str:
        """What listings show as the schedule."""
        return self.table("UTC").summary

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The run that follows one, as of now."""
        last = last_automated_data_interval
        info = next_run(
            self.table(_zone_of(last, restriction)),
            None if last is None else to_us(last.end),
            _us(restriction.earliest),
            _us(restriction.latest),
            restriction.catchup,
            now_us(),
        )
        if info is None:
            return None
        interval = DataInterval(from_us(info.interval_start), from_us(info.interval_end))
        return DagRunInfo(from_us(info.run_after), interval)

    def infer_manual_data_interval(self, *, run_after: datetime) -> DataInterval:
        """What a run started by hand covers."""
        found = infer_manual_interval(self.table("UTC"), to_us(run_after))
        return DataInterval(from_us(found.start), from_us(found.end))


class MultipleCronTriggerTimetable(_Known):
    """A run at each moment of any of several crons; at one that several name, one run.

    Args:
        *crons: cron expressions or presets such as ``@daily``.
        timezone: IANA name, or a zone that has one, in which they are read; None: that of the
            DAG's start_date.
        interval: what a run covers: so much before its moment.

    Raises:
        CronError: one line, with the remedy.
    """

    def __init__(
        self,
        *crons: str,
        timezone: str | tzinfo | None = None,
        interval: timedelta = timedelta(0),
    ) -> None:
        if not crons:
            raise CronError("MultipleCronTriggerTimetable needs at least one cron expression")
        self._crons = tuple(_cron(cron) for cron in crons)
        self._shown = ", ".join(crons)
        self._timezone = _zone(timezone)
        self._interval = _interval(interval)

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return SerializedTimetable(
            kind="cron_trigger",
            crons=self._crons,
            interval_us=self._interval,
            timezone=self._timezone or timezone,
            summary=self._shown,
        )


class CronTriggerTimetable(MultipleCronTriggerTimetable):
    """A run at each moment of a cron, covering no time, or ``interval`` before it.

    Args:
        cron: a cron expression or a preset.
        timezone: as of MultipleCronTriggerTimetable.
        interval: as of MultipleCronTriggerTimetable.
    """

    def __init__(
        self,
        cron: str,
        *,
        timezone: str | tzinfo | None = None,
        interval: timedelta = timedelta(0),
    ) -> None:
        super().__init__(cron, timezone=timezone, interval=interval)


class CronDataIntervalTimetable(_Known):
    """A run for the time from each moment of a cron to the next: ``schedule="<cron>"``.

    Args:
        cron: a cron expression or a preset.
        timezone: as of MultipleCronTriggerTimetable.
    """

    def __init__(self, cron: str, timezone: str | tzinfo | None = None) -> None:
        self._cron, self._timezone = cron, _zone(timezone)
        _cron(cron)

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return parse_schedule(self._cron, self._timezone or timezone)


class DeltaTriggerTimetable(_Known):
    """A run every ``delta``, counted from the start_date, covering ``interval`` before it.

    Args:
        delta: a timedelta of at least a second.
        interval: what a run covers: so much before its moment.
    """

    def __init__(self, delta: timedelta, *, interval: timedelta = timedelta(0)) -> None:
        self._delta, self._interval = _delta(delta), _interval(interval)

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return SerializedTimetable(
            kind="delta_trigger",
            delta_us=self._delta,
            interval_us=self._interval,
            timezone=timezone,
            summary=str(timedelta(microseconds=self._delta)),
        )


class DeltaDataIntervalTimetable(_Known):
    """A run for each stretch of ``delta`` since the start_date: ``schedule=timedelta(…)``."""

    def __init__(self, delta: timedelta) -> None:
        _delta(delta)
        self._delta = delta

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return parse_schedule(self._delta, timezone)


class EventsTimetable(_Known):
    """A run at each of the given dates.

    Args:
        event_dates: aware datetimes, in any order.
        restrict_to_events: a run started by hand gets the newest date that has passed, or the
            first one, rather than its own moment.
        presorted: accepted; the dates are sorted anyway.
        description: one line on what the dates are.
    """

    def __init__(
        self,
        event_dates: Iterable[datetime],
        restrict_to_events: bool = False,
        presorted: bool = False,
        description: str | None = None,
    ) -> None:
        dates = sorted({_event(date) for date in event_dates})
        if not dates:
            raise CronError("EventsTimetable needs at least one date")
        self._dates = tuple(dates)
        self._restrict = restrict_to_events
        self._description = description or f"{len(dates)} events"

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return SerializedTimetable(
            kind="events",
            moments=self._dates,
            restrict_to_events=self._restrict,
            timezone=timezone,
            summary=self._description,
        )


class OnceTimetable(_Known):
    """One run: ``schedule="@once"``."""

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return parse_schedule("@once", timezone)


class ContinuousTimetable(_Known):
    """One run after the other: ``schedule="@continuous"``."""

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return parse_schedule("@continuous", timezone)


class NullTimetable(_Known):
    """Runs by hand only: ``schedule=None``."""

    def table(self, timezone: str) -> SerializedTimetable:
        """What the scheduler is told."""
        return parse_schedule(None, timezone)


def _cron(expression: str) -> str:
    if not isinstance(expression, str):
        raise CronError(f"a cron expression must be text, not {expression!r}")
    found = parse_schedule(expression).cron
    return check_cron(expression) if found is None else found


def _zone(zone: str | tzinfo | None) -> str | None:
    if zone is None:
        return None
    if not isinstance(zone, str):
        name = getattr(zone, "key", None) or getattr(zone, "name", None)
        zone = "UTC" if zone is UTC else str(name or zone)
    return check_timezone(zone)


def _delta(delta: timedelta) -> int:
    if not isinstance(delta, timedelta) or duration_us(delta) < SECOND:
        raise CronError(
            f"a schedule's delta must be a timedelta of at least a second, not {delta!r}; "
            "for months and years use a cron expression"
        )
    return duration_us(delta)


def _interval(interval: timedelta) -> int:
    if not isinstance(interval, timedelta) or interval < timedelta(0):
        raise CronError(f"interval must be a timedelta of nothing or more, not {interval!r}")
    return duration_us(interval)


def _event(date: datetime) -> int:
    if not isinstance(date, datetime) or date.tzinfo is None:
        raise CronError(f"an event date must be a datetime with a time zone, not {date!r}")
    return to_us(date)


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def _zone_of(last: DataInterval | None, restriction: TimeRestriction) -> str:
    """The DAG's zone, as far as the arguments tell it."""
    known = restriction.earliest or (last.start if last is not None else None)
    return str(getattr(known.tzinfo, "key", None) or "UTC") if known is not None else "UTC"
