"""Names the trigger that keeps the runner's loop from turning (D20), from a thread beside it.

Every 50 ms the thread looks which task, or which callback outside of all tasks, the loop is in.
When it meets one, it posts a probe to the loop; a probe that has not run at a later look means
that the same step of that task has gone on since. An idle loop is never woken. A call that holds
the GIL stops this thread as well: then the supervisor notices the silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType

from roost.support.frames import pack
from roost.triggerer.messages import Blocked

__all__ = ["Watchdog"]

LOOK_S = 0.05
BLOCKED_S = 0.15
_ORPHAN_S = 6.0

# asyncio's and our own frames are on every stack; the culprit is what they called.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_OURS = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__), selectors.__file__)


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
        # One suspicion: a step of this task or callback, since then, probe back yet, told yet.
        self._suspect: object = None
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
        suspect = task or _callback(self._frame())
        if suspect is None:
            self._suspect = None
        elif suspect is not self._suspect or self._turned:
            self._suspect, self._since, self._told = suspect, now, False
            self._turned = False
            try:
                self._loop.call_soon_threadsafe(self._probe, suspect)
            except RuntimeError:  # the loop is closed
                self._done.set()
        elif not self._told and now - self._since >= BLOCKED_S:
            self._told = True
            self._tell(task, now - self._since)

    def _probe(self, suspect: object) -> None:
        if suspect is self._suspect:
            self._turned = True

    def _tell(self, task: asyncio.Task[object] | None, blocked_s: float) -> None:
        trigger_id, label = (None, "a callback") if task is None else self._name_task(task)
        where = _where(self._frame())
        note = Blocked(trigger_id, label[:500], where[:500], int(blocked_s * 1e6))
        with contextlib.suppress(OSError):  # pipe full, or nobody reads: a lost note is no harm
            os.write(self._notes, pack(note))  # below PIPE_BUF: whole or not at all

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._watched)

    def _orphaned(self, now: float) -> None:
        """End a runner whose loop is too blocked to notice that its supervisor has died."""
        if self._orphan_since is None:
            self._orphan_since = now
        elif now - self._orphan_since >= _ORPHAN_S:
            os._exit(1)


def _callback(top: FrameType | None) -> CodeType | None:
    """The code the loop runs outside of all tasks; None when it waits for something to do."""
    if top is None or _library(top.f_code.co_filename):
        return None
    return top.f_code


def _where(top: FrameType | None) -> str:
    """``file:line in function`` of the user's code that blocks, not of the library it called."""
    frames: list[FrameType] = []
    while top is not None:
        if not _library(top.f_code.co_filename):
            frames.append(top)
        top = top.f_back
    if not frames:
        return "unknown"
    own = (frame for frame in frames if not frame.f_code.co_filename.startswith(_INSTALLED))
    # All of it installed: the outermost is the trigger's own run(), the innermost may be anything.
    found = next(own, frames[-1])
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}"


def _library(filename: str) -> bool:
    return filename.startswith(_OURS) or filename.startswith("<frozen")
