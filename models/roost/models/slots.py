"""How slots are counted: in hundredths, so that a deferred task may hold a part of its own (H5).

A task that is queued or runs holds its ``pool_slots`` wholly. While it is deferred, and after its
event until it runs again, it holds ``deferred_percent`` of them: 0 gives all of it to others, 100
keeps the slot for its resume, 25 lets four such tasks share one. Sums of hundredths need no
rounding, so a count that is changed by differences stays what counting anew would give.
"""

from __future__ import annotations

__all__ = ["WHOLE", "as_slots", "share"]

WHOLE = 100
"""One slot."""


def share(slots: int, percent: int = WHOLE) -> int:
    """What ``percent`` of so many slots are, in hundredths of a slot."""
    return slots * percent


def as_slots(hundredths: int) -> int | float:
    """Hundredths as slots, for people: a whole number where it is one."""
    slots, rest = divmod(hundredths, WHOLE)
    return slots + rest / WHOLE if rest else slots
