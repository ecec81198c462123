"""Names the trigger that keeps the runner's loop from turning (D20), from a thread beside it.

Every 50 ms the thread looks which task the loop is in. When it meets one, it posts a probe to
the loop; a probe that has not run at a later look means that the same step of that task has gone
on since. An idle loop is never woken. A call that holds the GIL stops this thread as well: then
the supervisor notices the silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from roost.support.frames import pack
from roost.triggerer.messages import Blocked

__all__ = ["Watchdog"]

LOOK_S = 0.05
BLOCKED_S = 0.15
_ORPHAN_S = 10.0

# asyncio's and our own frames are on every stack; the culprit is what they called.
_OURS = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__))


class Watchdog:
    """Watches one loop from a daemon thread, and ends the process if its supervisor is gone.

    Args:
        loop: the loop to watch; it runs in the thread that makes the watchdog.
        name_task: gives ``(trigger id, label)`` of a task, or ``(None, …)``.
        notes: file descriptor that ``Blocked`` frames are written to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name_task: Callable[[asyncio.Task[object]], tuple[int | None, str]],
        notes: int,
    ) -> None:
        self._loop = loop
        self._name_task = name_task
        self._notes = notes
        self._watched = threading.get_ident()
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._orphan_since: float | None = None
        # One suspicion: the step of this task, since then, probe not back yet, told or not.
        self._suspect: asyncio.Task[object] | None = None
        self._since = 0.0
        self._turned = True
        self._told = False

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns once the thread has ended."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            now = time.monotonic()
            self._look(now)
            if os.getppid() != self._parent:
                self._orphaned(now)

    def _look(self, now: float) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            self._suspect = None
            return
        if task is not self._suspect or self._turned:
            self._suspect, self._since, self._told = task, now, False
            self._turned = False
            try:
                self._loop.call_soon_threadsafe(self._probe, task)
            except RuntimeError:  # the loop is closed
                self._done.set()
            return
        if not self._told and now - self._since >= BLOCKED_S:
            self._told = True
            self._tell(task, now - self._since)

    def _probe(self, task: asyncio.Task[object]) -> None:
        if task is self._suspect:
            self._turned = True

    def _tell(self, task: asyncio.Task[object], blocked_s: float) -> None:
        trigger_id, label = self._name_task(task)
        where = _where(sys._current_frames().get(self._watched))
        note = Blocked(trigger_id, label[:500], where[:500], int(blocked_s * 1e6))
        with contextlib.suppress(OSError):  # pipe full, or nobody reads: a lost note is no harm
            os.write(self._notes, pack(note))  # below PIPE_BUF: whole or not at all

    def _orphaned(self, now: float) -> None:
        """End a runner whose loop is too blocked to notice that its supervisor has died."""
        if self._orphan_since is None:
            self._orphan_since = now
        elif now - self._orphan_since >= _ORPHAN_S:
            os._exit(1)


def _where(top: FrameType | None) -> str:
    """``file:line in function`` of the frame of user code that is nearest to what blocks."""
    innermost = user = top
    while user is not None and _library(user.f_code.co_filename):
        user = user.f_back
    found = user or innermost
    if found is None:
        return "unknown"
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}"


def _library(filename: str) -> bool:
    return filename.startswith(_OURS) or filename.startswith("<frozen")
