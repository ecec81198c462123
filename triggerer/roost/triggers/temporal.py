"""Triggers that only wait for a moment: they wait as a row and cost no memory (timer lane)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from roost.dag.trigger import BaseTrigger, TaskSuccessEvent, TriggerEvent
from roost.exceptions import CronError, RoostException
from roost.support.clock import from_us, now_us, to_us

__all__ = ["CronTrigger", "DateTimeTrigger", "TimeDeltaTrigger"]


class DateTimeTrigger(BaseTrigger):
    """Fires at ``moment`` with that moment, in UTC, as payload.

    Args:
        moment: an aware datetime, or its ISO text: what a template makes of one.
        end_from_trigger: the task succeeds at that moment, without coming back to a worker (D11).

    Raises:
        RoostException: ``moment`` is no datetime or has no time zone.
    """

    def __init__(self, moment: datetime | str, *, end_from_trigger: bool = False) -> None:
        if isinstance(moment, str):
            with contextlib.suppress(ValueError):
                moment = datetime.fromisoformat(moment)
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise RoostException(
                f"{type(self).__name__} needs a datetime with a time zone, not {moment!r}"
            )
        self.moment = moment.astimezone(UTC)
        self.end_from_trigger = end_from_trigger

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The moment; a delta has become one when the trigger was made."""
        kwargs: dict[str, Any] = {"moment": self.moment}
        if self.end_from_trigger:
            kwargs["end_from_trigger"] = True
        return ("roost.triggers.DateTimeTrigger", kwargs)

    @property
    def due_at(self) -> datetime:
        """The moment: the triggerer needs to know no more."""
        return self.moment

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same wait as a coroutine, for whoever runs it outside the timer lane."""
        import asyncio  # late: sensors make this trigger in processes that never run it

        # Short sleeps: the wall clock may be set while we wait, and tells no one.
        while (left := self.moment - from_us(now_us())) > timedelta(0):  # noqa: ASYNC110
            await asyncio.sleep(min(left.total_seconds(), 60.0))
        yield TaskSuccessEvent() if self.end_from_trigger else TriggerEvent(self.moment)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.moment.isoformat()}>"


class TimeDeltaTrigger(DateTimeTrigger):
    """Fires ``delta`` after it was made.

    Args:
        delta: how long; a timedelta or seconds, these as text, too.
        end_from_trigger: as for :class:`DateTimeTrigger`.
    """

    def __init__(self, delta: timedelta | float | str, *, end_from_trigger: bool = False) -> None:
        if isinstance(delta, str):
            with contextlib.suppress(ValueError):
                delta = float(delta)
        if isinstance(delta, int | float) and not isinstance(delta, bool):
            delta = timedelta(seconds=delta)
        if not isinstance(delta, timedelta):
            raise RoostException(f"TimeDeltaTrigger needs a timedelta or seconds, not {delta!r}")
        super().__init__(from_us(now_us()) + delta, end_from_trigger=end_from_trigger)


class CronTrigger(DateTimeTrigger):
    """Fires at the next moment of a cron, as a schedule of that cron would (H14).

    The moment is chosen when the trigger is made. A wall time that a change of clocks doubles is
    waited for once, at its first occurrence; one that it skips, until the first instant after it.

    Args:
        expression: five fields, six with seconds last, or a preset such as ``@daily``.
        timezone: IANA name of the zone in which it is read.
        after: an aware datetime; the moment is later than that. None: than now.

    Raises:
        CronError: the expression or the zone is wrong, or there is no such moment in 50 years.
        RoostException: ``after`` is no datetime or has no time zone.
    """

    def __init__(
        self, expression: str, timezone: str = "UTC", after: datetime | None = None
    ) -> None:
        from roost.dag.cron import cron_of  # late: brings croniter, which few waits need
        from roost.dag.timetable import parse_schedule

        timetable = parse_schedule(expression, timezone)
        if timetable.kind != "cron":
            raise CronError(f"CronTrigger needs a cron expression, not {expression!r}")
        start = now_us() if after is None else to_us(DateTimeTrigger(after).moment)
        moment = cron_of(timetable.cron, timezone).after(start)
        if moment is None:
            raise CronError(f"{expression!r} has no moment in the 50 years to come")
        super().__init__(from_us(moment))
