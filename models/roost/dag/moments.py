"""Sets of moments that schedules are made of: crons, steps of one length, given dates (H14).

Moments are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from roost.dag.cron import Cron

__all__ = ["AnyOf", "Given", "Grid", "Moments", "first_of"]


class Moments(Protocol):
    """A set of moments."""

    def after(self, moment: int) -> int | None:
        """The first one later than ``moment``."""

    def before(self, moment: int) -> int | None:
        """The last one earlier than ``moment``."""


class AnyOf(NamedTuple):
    """The moments of several crons together, each once."""

    crons: Sequence[Cron]

    def after(self, moment: int) -> int | None:
        """The first one later than ``moment``."""
        found = [cron.after(moment) for cron in self.crons]
        return min((one for one in found if one is not None), default=None)

    def before(self, moment: int) -> int | None:
        """The last one earlier than ``moment``."""
        found = [cron.before(moment) for cron in self.crons]
        return max((one for one in found if one is not None), default=None)


class Grid(NamedTuple):
    """``anchor`` and every whole number of steps from it."""

    anchor: int
    step: int

    def after(self, moment: int) -> int | None:
        """The first one later than ``moment``."""
        return self.anchor + ((moment - self.anchor) // self.step + 1) * self.step

    def before(self, moment: int) -> int | None:
        """The last one earlier than ``moment``."""
        return self.anchor + -(-(moment - self.anchor) // self.step) * self.step - self.step


class Given(NamedTuple):
    """Moments in ascending order."""

    moments: Sequence[int]

    def after(self, moment: int) -> int | None:
        """The first one later than ``moment``."""
        place = bisect_right(self.moments, moment)
        return self.moments[place] if place < len(self.moments) else None

    def before(self, moment: int) -> int | None:
        """The last one earlier than ``moment``."""
        place = bisect_left(self.moments, moment)
        return self.moments[place - 1] if place else None


def first_of(
    moments: Moments, last: int | None, start: int | None, catchup: bool, now: int
) -> int | None:
    """Which moment comes next.

    Args:
        moments: all of them.
        last: the newest one that was taken; the result is later.
        start: the result is not earlier.
        catchup: every moment since, rather than only the newest that was missed.
        now: the current moment.
    """
    bounds: list[int | None] = []
    if last is not None:
        bounds.append(moments.after(last))
    if start is not None:
        bounds.append(moments.after(start - 1))
    if not catchup or not bounds:
        newest = moments.before(now + 1)
        if newest is not None:
            bounds.append(newest)
    if not bounds:
        return moments.after(now)
    first: int | None = None
    for bound in bounds:
        if bound is None:
            return None
        first = bound if first is None else max(first, bound)
    return first
