"""Whose thread it was that ended the runner.

A thread that calls ``os._exit`` has the GIL, and the loop's thread may be in the middle of a
healthy trigger's step: what is noted there (:mod:`roost.triggerer.steps`) would name the wrong one.
So it is noted whose code started a thread, and an exit from one is noted as that trigger's. Threads
that C code starts, and what ends a process from outside, are not seen.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import thread as pool
from weakref import WeakKeyDictionary

from roost.triggerer.case import CURRENT
from roost.triggerer.steps import accuse

__all__ = ["note_exits"]

_STARTED_BY: WeakKeyDictionary[threading.Thread, int] = WeakKeyDictionary()


def note_exits() -> None:
    """See to it from now on that an exit from a thread of a trigger is noted as its doing."""
    pid, loop_thread = os.getpid(), threading.get_ident()
    start, leave = threading.Thread.start, os._exit

    def note_start(self: threading.Thread) -> None:
        trigger_id = _whose()
        # One of a pool works for whoever comes, not for the one who came first.
        if trigger_id and vars(self).get("_target") is not vars(pool)["_worker"]:
            _STARTED_BY[self] = trigger_id
        start(self)

    def note_and_leave(status: int) -> None:
        if threading.get_ident() != loop_thread and os.getpid() == pid:
            accuse(_whose())
        leave(status)

    threading.Thread.start = note_start  # type: ignore[method-assign]
    os._exit = note_and_leave  # type: ignore[assignment]


def _whose() -> int:
    """The trigger whose code this thread executes; 0: nobody's."""
    # asyncio.to_thread() hands its caller's context on, Thread does not.
    return CURRENT.get(0) or _STARTED_BY.get(threading.current_thread(), 0)
