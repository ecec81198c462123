"""Sensors that wait for a moment; they wait in the timer lane, which costs no memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from roost.dag import knobs
from roost.exceptions import RoostException
from roost.sensors.base import BaseSensorOperator
from roost.support.clock import from_us, now_us
from roost.triggers.temporal import DateTimeTrigger

__all__ = ["DateTimeSensor", "TimeDeltaSensor"]


class _MomentSensor(BaseSensorOperator):
    """Defer until :meth:`moment`."""

    def moment(self, context: dict[str, Any]) -> datetime:
        """What to wait for."""
        raise NotImplementedError

    def execute(self, context: dict[str, Any]) -> Any:
        """Defer, unless the moment has passed."""
        moment = self.moment(context)
        if moment <= from_us(now_us()):
            return self.execute_complete(context)
        self.log.info("waiting until %s", moment.isoformat())
        return self.defer(
            trigger=DateTimeTrigger(moment),
            method_name="execute_complete",
            timeout=self.timeout,
        )


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
        target = self.target_time
        if isinstance(target, str):
            try:
                target = datetime.fromisoformat(target)
            except ValueError:
                raise RoostException(
                    f"target_time {target!r} is not ISO 8601, e.g. 2026-01-31T06:00:00+00:00"
                ) from None
        return target if target.tzinfo else target.replace(tzinfo=UTC)


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
