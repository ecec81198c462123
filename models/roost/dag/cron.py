"""Cron expressions on the real clock: the only user of croniter, and the only judge of DST (H14).

croniter is asked about wall times without a zone; this module decides at which instants those
wall times happen:

* A cron whose hour field names hours (``30 2 * * *``, ``0 */6 * * *``, ``*/10 2 * * *``) is a set
  of wall times. One that occurs twice, when clocks go back, fires at its first occurrence. One
  that is skipped, when clocks go forward, fires at the first instant after the gap. Wall times
  that land on one instant fire once.
* A cron that runs in every hour (``*/15 * * * *``, ``0 * * * *``) follows elapsed time: it fires
  at every instant whose wall time matches, in the repeated hour as in any other.

So firing instants strictly increase, and no interval between two of them is empty or lost.
Six-field expressions carry seconds in the last field, as Airflow's do.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

from roost.exceptions import CronError
from roost.support.clock import SECOND, from_us, to_us

__all__ = ["MAX_LENGTH", "Cron", "check_cron", "check_timezone", "cron_of"]

MAX_LENGTH = 256
_DAY = 86_400 * SECOND
_US = timedelta(microseconds=1)
_SOME_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 - wall time; where the search for a match begins
_NAMES = re.compile(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat")
_PLAIN = re.compile(r"[0-9*,/?#lw-]+")
_EXAMPLE = (
    "write five fields such as '0 3 * * *', six with seconds last, or a preset such as @daily"
)


def check_cron(expression: str) -> str:
    """The expression with single spaces, in lower case.

    Raises:
        CronError: not a cron expression, too long, or one that never occurs. Decided within
            50 ms whatever the text.
    """
    if len(expression) > MAX_LENGTH:
        raise CronError(
            f"cron expression of {len(expression):,} characters, over {MAX_LENGTH}; {_EXAMPLE}"
        )
    shown = repr(expression if len(expression) <= 60 else expression[:57] + "...")
    fields = expression.lower().split()
    cron = " ".join(fields)
    if len(fields) not in (5, 6):
        raise CronError(f"{shown} has {len(fields)} fields; {_EXAMPLE}")
    # Names removed, letters that are left would be croniter's random and hashed fields (R, H),
    # which would not be the same schedule in two processes.
    for field in fields:
        if not _PLAIN.fullmatch(_NAMES.sub("0", field)):
            raise CronError(f"{shown} is not a cron expression at {field[:60]!r}; {_EXAMPLE}")
    try:
        croniter(cron, _SOME_DAY).get_next(datetime)
    except CroniterBadDateError:
        raise CronError(f"{shown} never occurs; choose a day that exists") from None
    except Exception as error:  # croniter leaks KeyError, IndexError and more on hostile text
        raise CronError(f"{shown} is not a cron expression; {_EXAMPLE}") from error
    return cron


def check_timezone(name: str) -> str:
    """The name, if it is a time zone this installation knows.

    Raises:
        CronError: it is not.
    """
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise CronError(
            f"unknown time zone {name!r}; use an IANA name such as 'Europe/Berlin' or 'UTC'"
        ) from None
    return name


@lru_cache(maxsize=4096)
def cron_of(expression: str, timezone: str) -> Cron:
    """The cron for a checked expression in a zone, shared: a Cron has no state."""
    return Cron(expression, timezone)


class Cron:
    """The instants at which a cron fires, in microseconds since the epoch, UTC.

    Args:
        expression: as :func:`check_cron` returned it.
        timezone: an IANA name.
    """

    __slots__ = ("_elapsed", "_expression", "_zone")

    def __init__(self, expression: str, timezone: str) -> None:
        self._expression = expression
        self._zone = ZoneInfo(timezone)
        hours = croniter.expand(expression)[0][1]
        self._elapsed = hours == ["*"] or len(hours) == 24

    def after(self, moment: int) -> int | None:
        """The first firing later than ``moment``; None when there is none within 50 years."""
        return self._elapsed_after(moment) if self._elapsed else self._wall_after(moment)

    def before(self, moment: int) -> int | None:
        """The last firing earlier than ``moment``; None when there is none within 50 years."""
        return self._elapsed_before(moment) if self._elapsed else self._wall_before(moment)

    def at_or_after(self, moment: int) -> int | None:
        """The first firing at ``moment`` or later."""
        return self.after(moment - 1)

    def at_or_before(self, moment: int) -> int | None:
        """The last firing at ``moment`` or earlier."""
        return self.before(moment + 1)

    # Wall times: map each matching wall time to its one instant. The map never decreases.

    def _wall_after(self, moment: int) -> int | None:
        label = _next_label(self._expression, self._passed(moment))
        return None if label is None else self._instant(label)

    def _wall_before(self, moment: int) -> int | None:
        label = _prev_label(self._expression, self._passed(moment - 1) + _US)
        return None if label is None else self._instant(label)

    def _passed(self, moment: int) -> datetime:
        """The latest wall time whose instant is at or before ``moment``."""
        local = from_us(moment).astimezone(self._zone)
        label = local.replace(tzinfo=None, fold=0)
        if not local.fold:
            return label
        # In the second pass through repeated wall times all of them have had their instant.
        first_pass = to_us(label.replace(tzinfo=self._zone))
        change = self._bisect(first_pass, moment)
        return _naive(change + self._offset(first_pass)) - _US

    def _instant(self, label: datetime) -> int:
        local = label.replace(tzinfo=self._zone)  # fold=0: the first of two occurrences
        moment = to_us(local)
        if self._label(moment) == label:
            return moment
        # In a gap. PEP 495: fold=0 lands after it, fold=1 before it.
        return self._bisect(to_us(local.replace(fold=1)), moment)

    # Elapsed time: within a stretch of constant offset wall time and elapsed time agree, so go
    # from stretch to stretch.

    def _elapsed_after(self, moment: int) -> int | None:
        while True:
            offset = self._offset(moment)
            label = _next_label(self._expression, _naive(moment + offset))
            if label is None:
                return None
            fires = _us(label) - offset
            change = self._first_change(moment, fires)
            if change is None:
                return fires
            # Look again from the change on, where the wall time differs. The instant of the
            # change itself may match.
            offset = self._offset(change)
            label = _next_label(self._expression, _naive(change + offset) - _US)
            if label is not None and _us(label) - offset == change:
                return change
            moment = change

    def _elapsed_before(self, moment: int) -> int | None:
        while True:
            offset = self._offset(moment - 1)
            label = _prev_label(self._expression, _naive(moment + offset))
            if label is None:
                return None
            fires = _us(label) - offset
            change = self._last_change(fires, moment - 1)
            if change is None:
                return fires
            moment = change

    # Offsets and their changes. zoneinfo does not list transitions, so they are searched for.

    def _label(self, moment: int) -> datetime:
        return from_us(moment).astimezone(self._zone).replace(tzinfo=None, fold=0)

    def _offset(self, moment: int) -> int:
        offset = from_us(moment).astimezone(self._zone).utcoffset()
        assert offset is not None  # noqa: S101 - ZoneInfo always has one
        return offset // _US

    def _first_change(self, after: int, until: int) -> int | None:
        """The first change of offset in (after, until]; no zone changes twice within a day."""
        offset = self._offset(after)
        while after < until:
            probe = min(after + _DAY, until)
            if self._offset(probe) != offset:
                return self._bisect(after, probe)
            after = probe
        return None

    def _last_change(self, after: int, until: int) -> int | None:
        """The last change of offset in (after, until]."""
        offset = self._offset(until)
        while after < until:
            probe = max(until - _DAY, after)
            if self._offset(probe) != offset:
                return self._bisect(probe, until)
            until = probe
        return None

    def _bisect(self, low: int, high: int) -> int:
        """The instant in (low, high] at which the offset of ``low`` ends; whole seconds."""
        offset = self._offset(low)
        low, high = low // SECOND, -(-high // SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle * SECOND) == offset:
                low = middle
            else:
                high = middle
        return high * SECOND


def _naive(us: int) -> datetime:
    return from_us(us).replace(tzinfo=None)


def _us(label: datetime) -> int:
    return to_us(label.replace(tzinfo=UTC))


# Many DAGs share a schedule and each asks about the same few moments, hence the caches. croniter
# works on float seconds, so it is only handed whole ones.


@lru_cache(maxsize=8192)
def _next_label(expression: str, label: datetime) -> datetime | None:
    """The first matching wall time after ``label``."""
    try:
        found: datetime = croniter(expression, label.replace(microsecond=0)).get_next(datetime)
    except (CroniterError, OverflowError, ValueError):
        return None
    return found


@lru_cache(maxsize=8192)
def _prev_label(expression: str, label: datetime) -> datetime | None:
    """The last matching wall time before ``label``."""
    if label.microsecond:
        label = label.replace(microsecond=0) + timedelta(seconds=1)
    try:
        found: datetime = croniter(expression, label).get_prev(datetime)
    except (CroniterError, OverflowError, ValueError):
        return None
    return found
