"""Sensors that wait for a moment; in the timer lane, which costs no memory, where they defer."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from roost.dag import knobs
from roost.dag.zone import dag_timezone
from roost.exceptions import DagError, RoostException
from roost.sensors.base import BaseSensorOperator
from roost.support.clock import from_us, now_us
from roost.triggers.temporal import CronTrigger, DateTimeTrigger

__all__ = [
    "CronSensor",
    "DateTimeSensor",
    "DateTimeSensorAsync",
    "TimeDeltaSensor",
    "TimeDeltaSensorAsync",
    "TimeSensor",
    "TimeSensorAsync",
]


class _MomentSensor(BaseSensorOperator):
    """Waits until :meth:`moment`."""

    has_trigger = True

    def moment(self, context: dict[str, Any]) -> datetime:
        """What to wait for."""
        raise NotImplementedError

    def poke(self, context: dict[str, Any]) -> bool:
        """Whether the moment has come."""
        return self.moment(context) <= from_us(now_us())

    def make_trigger(self, context: dict[str, Any]) -> DateTimeTrigger:
        """A row in the timer lane."""
        return DateTimeTrigger(self.moment(context))


class DateTimeSensor(_MomentSensor):
    """Wait until ``target_time``.

    Args:
        target_time: an aware datetime, or ISO 8601 text, templated; text without an offset is
            in UTC.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("target_time",)

    def __init__(self, *, target_time: datetime | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_time = target_time

    def moment(self, context: dict[str, Any]) -> datetime:
        """The target time."""
        return _read("target_time", self.target_time)


class TimeDeltaSensor(_MomentSensor):
    """Wait until ``delta`` after the end of the data interval.

    Args:
        delta: a timedelta or seconds.
        **kwargs: see BaseSensorOperator.
    """

    def __init__(self, *, delta: timedelta | float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = knobs.duration(f"task {self.task_id!r}", "delta", delta)

    def moment(self, context: dict[str, Any]) -> datetime:
        """End of the data interval, or for a run without one the time it was asked for, + delta."""
        end: datetime = context["data_interval_end"] or context["dag_run"].queued_at
        return end + self.delta


class TimeSensor(_MomentSensor):
    """Wait until ``target_time`` of the day on which the task runs.

    Args:
        target_time: a ``datetime.time``, in the DAG's time zone unless it has its own.
        **kwargs: see BaseSensorOperator.
    """

    def __init__(self, *, target_time: time, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(target_time, time):
            raise DagError(
                f"task {self.task_id!r}: target_time must be a datetime.time, not {target_time!r}"
            )
        self.target_time = target_time

    def moment(self, context: dict[str, Any]) -> datetime:
        """The time on the day of the task's start."""
        zone = self.target_time.tzinfo or ZoneInfo(dag_timezone(self.dag))
        day = context["ti"].start_date.astimezone(zone).date()
        return datetime.combine(day, self.target_time, tzinfo=zone)


class CronSensor(_MomentSensor):
    """Wait until the next moment of a cron after the task has begun.

    The moment is one that a schedule of this cron would have, changes of clocks included. Looks,
    deferrals and lost workers do not shift it, a new try does.

    Args:
        cron: five fields, six with seconds last, or a preset such as ``@hourly``, templated.
        timezone: IANA name of the zone in which it is read; default: the DAG's.
        after: wait for the first moment after this instead, an aware datetime or ISO 8601 text,
            templated; text without an offset is in UTC.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("cron", "after")

    def __init__(
        self,
        *,
        cron: str,
        timezone: str | None = None,
        after: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cron = cron
        self.timezone = timezone
        self.after = after

    def moment(self, context: dict[str, Any]) -> datetime:
        """The first moment of the cron after the start."""
        after = context["ti"].start_date if self.after is None else _read("after", self.after)
        return CronTrigger(self.cron, self.timezone or dag_timezone(self.dag), after).moment


class DateTimeSensorAsync(DateTimeSensor):
    """DateTimeSensor that defers, whatever ``core.default_deferrable`` says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, **kwargs})


class TimeDeltaSensorAsync(TimeDeltaSensor):
    """TimeDeltaSensor that defers, whatever ``core.default_deferrable`` says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, **kwargs})


class TimeSensorAsync(TimeSensor):
    """TimeSensor that defers, whatever ``core.default_deferrable`` says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, **kwargs})


def _read(name: str, given: datetime | str) -> datetime:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise RoostException(
                f"{name} {given!r} is not ISO 8601, e.g. 2026-01-31T06:00:00+00:00"
            ) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)
