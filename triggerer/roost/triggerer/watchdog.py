"""Names the trigger that keeps the runner's loop from turning (D20), from a thread beside it.

Every 50 ms the thread looks which task, or which callback outside of all tasks, the loop is in.
When it meets one, it posts a probe to the loop; a probe that has not run at a later look means
that the same step of that task has gone on since, and the probe itself tells when it was over. An
idle loop is never woken. A call that holds the GIL stops this thread as well: then it is told of
when it is over, or the supervisor notices the silence.

What the loop's thread waited for a CPU is not counted, nor what the process was stopped: on a busy
machine a loop is late, but nobody blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import selectors
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType

from roost.support.frames import pack
from roost.triggerer.case import CURRENT
from roost.triggerer.messages import Blocked

__all__ = ["Watchdog"]

LOOK_S = 0.05
BLOCKED_S = 0.15
_ORPHAN_S = 6.0
# Between two looks, more than this counts only as far as the loop's thread has used a CPU.
_GAP_S = 0.2
_UNSEEN = "a call that kept the interpreter to itself"

# asyncio's and our own frames are on every stack; the culprit is what they called.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_OURS = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__), selectors.__file__)


class Watchdog:
    """Watches one loop from a daemon thread, and ends the process if its supervisor is gone.

    Args:
        loop: the loop to watch; it runs in the thread that makes the watchdog.
        name_task: gives ``(trigger id, label)`` of a task, or ``(None, …)``.
        name_trigger: gives the label of a trigger.
        notes: file descriptor that ``Blocked`` frames are written to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name_task: Callable[[asyncio.Task[object]], tuple[int | None, str]],
        name_trigger: Callable[[int], str],
        notes: int,
    ) -> None:
        self._loop = loop
        self._name_task = name_task
        self._name_trigger = name_trigger
        self._notes = notes
        self._watched = threading.get_ident()
        self._schedstat = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._orphan_since: float | None = None
        # One suspicion: a step of this task or callback, for so long, probe back yet, told yet.
        self._suspect: object = None
        self._blocked_s = 0.0
        self._turned = True
        self._told: Blocked | None = None
        self._seen = self._ran = self._starved = self._turned_at = 0.0

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
        before, passed = self._seen, self._passed(now)
        if self._turned and self._suspect is not None:
            self._over(min(passed, max(0.0, self._turned_at - before)))
        if suspect is not None and suspect is self._suspect:
            self._blocked_s += passed
            if self._told is None and self._blocked_s >= BLOCKED_S:
                self._tell(task)
        elif self._told is not None:
            self._blocked_s += passed  # it went on into a library's code: its probe is not back
        elif suspect is None:
            self._suspect = None
        else:
            self._suspect, self._blocked_s, self._turned = suspect, 0.0, False
            try:
                self._loop.call_soon_threadsafe(self._probe, suspect)
            except RuntimeError:  # the loop is closed
                self._done.set()

    def _passed(self, now: float) -> float:
        """Seconds since the last look that the loop's thread could have turned in."""
        ran, starved = self._scheduled()
        gap = now - self._seen - (starved - self._starved)
        if gap > _GAP_S:  # this thread did not run either: for the GIL, or because we were stopped
            gap = max(_GAP_S, ran - self._ran)
        self._seen, self._ran, self._starved = now, ran, starved
        return max(0.0, gap)

    def _scheduled(self) -> tuple[float, float]:
        """Seconds that the loop's thread has run, and has waited for a CPU."""
        try:
            with open(self._schedstat, "rb", buffering=0) as file:
                ran, starved, _ = file.read().split()
        except (OSError, ValueError):  # a kernel without it
            return 0.0, 0.0
        return int(ran) / 1e9, int(starved) / 1e9

    def _probe(self, suspect: object) -> None:
        if suspect is self._suspect:
            self._turned_at = time.monotonic()
            self._turned = True

    def _tell(self, task: asyncio.Task[object] | None) -> None:
        frame = self._frame()
        trigger_id, label = self._name_callback(frame) if task is None else self._name_task(task)
        blocked_us = int(self._blocked_s * 1e6)
        self._told = Blocked(trigger_id, label[:500], _where(frame)[:500], blocked_us)
        self._write(self._told)

    def _over(self, since_look: float) -> None:
        """What was suspected is over; tell so, if it was told of or could not be."""
        suspect, self._suspect = self._suspect, None
        self._blocked_s += since_look
        if (
            self._told is None
            and self._blocked_s >= BLOCKED_S
            and isinstance(suspect, asyncio.Task)
        ):
            trigger_id, label = self._name_task(suspect)
            self._told = Blocked(trigger_id, label[:500], _UNSEEN, 0)
        if self._told is not None:
            self._told.blocked_us, self._told.over = int(self._blocked_s * 1e6), True
            self._write(self._told)
            self._told = None

    def _name_callback(self, top: FrameType | None) -> tuple[int | None, str]:
        """Whose context the callback runs in: that of the trigger that registered it."""
        while top is not None:
            context = getattr(top.f_locals.get("self"), "_context", None)  # of asyncio's Handle
            if top.f_code.co_name == "_run" and isinstance(context, contextvars.Context):
                trigger_id = context.get(CURRENT)
                if trigger_id is not None:
                    return trigger_id, self._name_trigger(trigger_id)
            top = top.f_back
        return None, "a callback"

    def _write(self, note: Blocked) -> None:
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
    code = top.f_code
    while top is not None:  # the callback itself, whatever it is in
        if not _library(top.f_code.co_filename):
            code = top.f_code
        top = top.f_back
    return code


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
