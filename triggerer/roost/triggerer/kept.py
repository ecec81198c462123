"""How much of the time that has passed a loop was kept by what it executed, and not by others.

A block is judged by a thread beside the loop (:mod:`roost.triggerer.watchdog`). It must not count
what the loop's thread waited for a CPU or for the GIL, or what the process was stopped; and it
must count a call that holds the GIL, while which it does not run itself.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import NamedTuple

from roost.triggerer.pulse import schedstat
from roost.triggerer.steps import count_look

__all__ = ["Kept"]

# A look that is later than this, and not for want of a CPU, was kept by the GIL or by a stop.
_LATE_S = 0.004
_READINGS = 5
# On a kernel that does not tell how threads have run: what counts of the time between two looks.
_GAP_S = 0.2


class _Ran(NamedTuple):
    """What the kernel tells of a thread: seconds on a CPU, seconds it waited for one, times it
    was put on one."""

    on_cpu: float = 0.0
    starved: float = 0.0
    times: int = 0

    @classmethod
    def of(cls, thread: int) -> _Ran:
        """Of a thread of this process, by its number in the kernel."""
        try:
            on_cpu, starved, times = schedstat(f"/proc/self/task/{thread}")
        except (OSError, ValueError):  # a kernel without it
            return cls()
        return cls(on_cpu / 1e9, starved / 1e9, times)

    def since(self, before: _Ran) -> _Ran:
        """What has come since."""
        return _Ran(
            self.on_cpu - before.on_cpu, self.starved - before.starved, self.times - before.times
        )


class Kept:
    """Tells a thread that looks at another one how long that was kept since the last look.

    Args:
        watched: the other thread's number in the kernel.
        look_s: the thread sleeps for so long between two looks.
        looker: the number of the thread that will look, where that is not the one that makes this
            and time counts from now on.
    """

    def __init__(self, watched: int, look_s: float, looker: int = 0) -> None:
        self._watched = watched
        self._look_s = look_s
        self._ran, self._own = (_Ran.of(watched), _Ran.of(looker)) if looker else (_Ran(), _Ran())
        #: When it looked last, as ``time.monotonic()`` tells.
        self.seen = time.monotonic()

    def since_last(self) -> tuple[float, float]:
        """The time now, and the seconds since the last look in which the thread was kept by what
        it executes.

        Whoever waits for the GIL asks for it about every five milliseconds, and is put on a CPU
        each time. So the looking thread knows that it was waiting, and was not stopped, and
        whether the other one was waiting, too, for somebody else's call.
        """
        for _ in range(_READINGS):
            began = time.monotonic()
            ran, own = _Ran.of(self._watched), _Ran.of(threading.get_native_id())
            now = time.monotonic()
            # Reading lets go of the GIL each time, which a thread that spins gives back only when
            # asked: the supervisor must not take that for a GIL that is held.
            count_look()
            if now - began <= _LATE_S:
                break  # else it waited for the GIL in between: what was read first is old
        gap = now - self.seen
        its, mine = ran.since(self._ran), own.since(self._own)
        self.seen, self._ran, self._own = now, ran, own
        return now, self._counted(gap, its, mine) if own.times else min(gap, _GAP_S)

    def _counted(self, gap: float, its: _Ran, mine: _Ran) -> float:
        if gap - self._look_s - mine.starved <= _LATE_S:
            return max(0.0, gap - its.starved)
        asked_s = sys.getswitchinterval()
        awake = min(gap, self._look_s + mine.starved + mine.times * asked_s)
        waiting = its.on_cpu + its.starved + its.times * asked_s
        return min(gap, its.on_cpu + max(0.0, awake - waiting))
