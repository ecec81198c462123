"""What is imported for triggers, beside the loop, and for how long it has been (D20).

A DAG file is executed in a thread of its own (:mod:`roost.triggerer.registry`), so an import that
takes seconds keeps nobody waiting but the triggers that need it. Those do wait, for something that
no task's log shows: so it is told of like a block, with its line, by the watchdog's thread. An
import that keeps the GIL to itself keeps everybody waiting; the supervisor sees that from outside
(:mod:`roost.triggerer.held`).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from roost.triggerer.kept import Kept
from roost.triggerer.messages import Blocked
from roost.triggerer.places import UNSEEN, calls_of, place_of_import
from roost.triggerer.steps import LONG_S, LOOK_S, note_import, put_back, watchdog_thread

__all__ = ["ImportWatch", "importing", "where_in"]

_now = time.monotonic  # a module may replace the other


class _Import:
    """One import, by the thread that makes this."""

    __slots__ = ("blocked_s", "ended", "kept", "kernel_id", "place", "thread", "told", "trigger_id")

    def __init__(self, trigger_id: int) -> None:
        self.trigger_id = trigger_id
        self.thread, self.kernel_id = threading.get_ident(), threading.get_native_id()
        self.kept = Kept(self.kernel_id, LOOK_S, watchdog_thread())
        self.blocked_s = 0.0
        self.ended = 0.0
        self.place = ""  # where it was when it was last seen to take long
        self.told: Blocked | None = None


# Those that were not told to their end: one as a rule, or more where one hangs.
_open: list[_Import] = []


@contextlib.contextmanager
def importing(trigger_id: int) -> Iterator[None]:
    """Note that the code of this trigger is imported, in this thread."""
    one = _Import(trigger_id)
    _open.append(one)
    note_import(trigger_id, one.kernel_id)
    try:
        yield
    finally:
        put_back(trigger_id)
        newest = next((other for other in reversed(_open) if not other.ended), one)
        if newest is one:  # else it had hung, and another is under way
            note_import(0, 0)
        one.ended = _now()


def where_in(thread: int | None) -> str:
    """``file:line in function`` of the code that a thread imports; empty when it is not seen."""
    top = None if thread is None else sys._current_frames().get(thread)
    return place_of_import(calls_of(top))


class ImportWatch:
    """Tells of imports that take long; looks from the watchdog's thread.

    Args:
        note: makes a note of a trigger that is told of, from its id, place and seconds.
        write: takes notes.
    """

    def __init__(
        self, note: Callable[[int, str, float], Blocked], write: Callable[[Blocked], None]
    ) -> None:
        self._note = note
        self._write = write

    def look(self) -> None:
        """Tell what has taken long since the last look, and what of that is over."""
        for one in tuple(_open):
            ended = one.ended
            # Before anything that lets go of the GIL: it may be somewhere else at once.
            place = "" if ended else where_in(one.thread)
            self._look_at(one, ended, place)

    def _look_at(self, one: _Import, ended: float, place: str) -> None:
        before = one.kept.seen
        _, passed = one.kept.since_last()
        if ended:
            passed = max(0.0, min(passed, ended - before))
            _open.remove(one)
        one.blocked_s += passed
        one.place = place or one.place
        if one.told is None and one.blocked_s >= LONG_S:
            one.told = self._note(one.trigger_id, one.place or UNSEEN, one.blocked_s)
            one.told.importing = True
            self._write(one.told)
        if ended and one.told is not None:
            one.told.blocked_us, one.told.over = int(one.blocked_s * 1e6), True
            self._write(one.told)
