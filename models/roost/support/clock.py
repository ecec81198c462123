"""The one clock: microseconds since the epoch, UTC, as plain integers.

Every timestamp in the database and on a wire is such an integer: exact, ordered, indexable and
the same on SQLite and PostgreSQL. Conversion to and from ``datetime`` happens at the edges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

__all__ = ["EPOCH", "SECOND", "duration_us", "from_us", "now_us", "running_on", "to_us"]

SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US = timedelta(microseconds=1)


_virtual: Callable[[], int] | None = None


def now_us() -> int:
    """The wall clock in microseconds; decides only what is due, never who holds a lease."""
    return time.time_ns() // 1000 if _virtual is None else _virtual()


@contextmanager
def running_on(clock: Callable[[], int]) -> Iterator[None]:
    """Let :func:`now_us` of this process tell another time, for a simulation."""
    global _virtual
    before, _virtual = _virtual, clock
    try:
        yield
    finally:
        _virtual = before


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since the epoch.

    Raises:
        ValueError: the datetime has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"datetime {moment!s} has no time zone; give it one, e.g. tzinfo=UTC")
    return (moment - EPOCH) // _ONE_US


def from_us(us: int) -> datetime:
    """Microseconds since the epoch as an aware UTC datetime, exact to the microsecond."""
    return EPOCH + timedelta(microseconds=us)


def duration_us(delta: timedelta) -> int:
    """A timedelta in whole microseconds."""
    return delta // _ONE_US
