"""The time of a simulation."""

from __future__ import annotations

from datetime import UTC, datetime

from roost.support.clock import to_us

__all__ = ["Clock", "moment_us"]


class Clock:
    """Tells the simulation's time in microseconds; whoever has it may set ``now``."""

    __slots__ = ("now",)

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def moment_us(moment: datetime) -> int:
    """A moment in microseconds; one without a time zone is UTC."""
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
