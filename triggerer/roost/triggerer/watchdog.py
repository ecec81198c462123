"""Names the trigger that keeps the runner's loop from turning (D20), from a thread beside it.

Every 50 ms the thread looks what the loop executes for a trigger, and since when
(:mod:`roost.triggerer.steps`): a step of a task, or a callback. Steps that took long and are over
are found in a list of the loop's own, so that a block is billed to the step that it was, to the
millisecond, also where a call has held the GIL and this thread could not look.

For what is not noted there - code of our own, or a callback of a loop that is not asyncio's - it
posts a probe to the loop when it meets it; a probe that has not run at a later look means
that the same thing has gone on since, and the probe itself tells when it was over. An idle loop
is never woken.

What the loop's thread waited for a CPU is not counted, nor what the process was stopped, nor what
another thread has held the GIL for: then a loop is late, but nobody in it blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FrameType
from typing import NamedTuple

from roost.support.frames import pack
from roost.support.storable import storable
from roost.triggerer.case import CURRENT
from roost.triggerer.importing import ImportWatch
from roost.triggerer.kept import Kept
from roost.triggerer.messages import Blocked
from roost.triggerer.places import UNSEEN, calls_of, is_library, place_of
from roost.triggerer.steps import (
    LONG_S,
    LOOK_S,
    Executing,
    Long,
    count_look,
    executing,
    take_long,
)

__all__ = ["Watchdog", "Who"]

BLOCKED_S = LONG_S
_ORPHAN_S = 6.0


class Who(NamedTuple):
    """Whose a trigger is.

    Attributes:
        label: in words; empty when it is not known any more.
        dag_id: of its task; empty where it has none.
        task_id: of the same.
    """

    label: str
    dag_id: str = ""
    task_id: str = ""


class Watchdog:
    """Watches one loop from a daemon thread, and ends the process if its supervisor is gone.

    Args:
        loop: the loop to watch; it runs in the thread that makes the watchdog.
        name_task: gives the trigger of a task, or None, and whose that is.
        name_trigger: gives whose a trigger is.
        notes: file descriptor that ``Blocked`` frames are written to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name_task: Callable[[asyncio.Task[object]], tuple[int | None, Who]],
        name_trigger: Callable[[int], Who],
        notes: int,
    ) -> None:
        self._loop = loop
        self._name_task = name_task
        self._name_trigger = name_trigger
        self._notes = notes
        self._watched = threading.get_ident()
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._orphan_since: float | None = None
        # One suspicion: a step, or what else, for so long, probe back yet, told yet.
        self._suspect: object = None
        self._blocked_s = 0.0
        self._turned = True
        self._told: Blocked | None = None
        self._turned_at = 0.0
        self._place: tuple[Executing, str] | None = None  # where a step was that has taken long
        self._over: list[Long] = []  # have ended, but after the last look
        self._kept = Kept(threading.get_native_id(), LOOK_S)
        self._seen = self._kept.seen
        self._imports = ImportWatch(self._note_trigger, self._write)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns once the thread has ended."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            count_look()
            # Before anything that lets go of the GIL: what is executing may be over in no time.
            step = executing()
            if step is not None and time.monotonic() - step[2] >= BLOCKED_S:
                self._place = step, _where(self._frame())
            self._imports.look()
            self._look()
            if os.getppid() != self._parent:
                self._orphaned(self._seen)

    def _look(self) -> None:
        before = self._seen
        self._seen, passed = self._kept.since_last()
        step = executing()
        self._over += take_long()  # after the other: what ends in between is in here
        over = [long for long in self._over if long.ended <= self._seen]
        del self._over[: len(over)]
        for long in over:
            passed -= self._step_over(long, before, passed)
        if self._over:
            return
        if step is None:
            self._look_elsewhere(before, passed)
        elif not any(step is long.step for long in over):
            seconds = max(0.0, self._seen - max(step[2], before))
            self._step_goes_on(step, min(passed, seconds))

    # -- what the loop executes for a trigger --------------------------------------------------

    def _step_goes_on(self, step: Executing, seconds: float) -> None:
        if step is not self._suspect:
            self._elsewhere_over(0.0)
            self._suspect, self._blocked_s, self._turned = step, 0.0, True
        self._blocked_s += seconds
        if self._told is None and self._blocked_s >= BLOCKED_S:
            self._told = self._note(step, self._blocked_s, _where(self._frame()))
            self._write(self._told)

    def _step_over(self, long: Long, before: float, left: float) -> float:
        """A step has ended: tell if it has blocked; gives how much of the time left it took."""
        took = max(0.0, min(left, long.ended - max(long.step[2], before)))
        known, told = 0.0, None
        if long.step is self._suspect:
            known, told = self._blocked_s, self._told
            self._suspect = self._told = None
        if known + took >= BLOCKED_S or told is not None:
            note = told or self._note(long.step, known + took)
            if told is None:  # nobody saw it at work: it is told of now
                self._write(note)
            note.blocked_us, note.over = int((known + took) * 1e6), True
            self._write(note)
        return took

    def _note(self, step: Executing, seconds: float, where: str = "") -> Blocked:
        if self._place is not None and self._place[0] is step:
            where = self._place[1]
        where = where or _code_of(step[0]) or UNSEEN
        return self._note_trigger(step[1], where, seconds)

    def _note_trigger(self, trigger_id: int, where: str, seconds: float) -> Blocked:
        return _blocked(trigger_id, self._name_trigger(trigger_id), where, seconds)

    # -- what is not noted ---------------------------------------------------------------------

    def _look_elsewhere(self, before: float, passed: float) -> None:
        task = asyncio.current_task(self._loop)
        suspect = task or _callback(self._frame())
        if self._turned and self._suspect is not None:
            self._elsewhere_over(min(passed, max(0.0, self._turned_at - before)))
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

    def _probe(self, suspect: object) -> None:
        if suspect is self._suspect:
            self._turned_at = time.monotonic()
            self._turned = True

    def _tell(self, task: asyncio.Task[object] | None) -> None:
        frame = self._frame()
        trigger_id, who = self._name_callback(frame) if task is None else self._name_task(task)
        self._told = _blocked(trigger_id, who, _where(frame) or "unknown", self._blocked_s)
        self._write(self._told)

    def _elsewhere_over(self, since_look: float) -> None:
        """What was suspected is over; tell so, if it was told of."""
        self._suspect = None
        self._blocked_s += since_look
        if self._told is not None:
            self._told.blocked_us, self._told.over = int(self._blocked_s * 1e6), True
            self._write(self._told)
            self._told = None

    def _name_callback(self, top: FrameType | None) -> tuple[int | None, Who]:
        """Whose context the callback runs in: that of the trigger that registered it."""
        while top is not None:
            context = getattr(top.f_locals.get("self"), "_context", None)  # of asyncio's Handle
            if top.f_code.co_name == "_run" and isinstance(context, contextvars.Context):
                trigger_id = context.get(CURRENT)
                if trigger_id is not None:
                    return trigger_id, self._name_trigger(trigger_id)
            top = top.f_back
        return None, Who("a callback")

    # -- the process ---------------------------------------------------------------------------

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


def _blocked(trigger_id: int | None, who: Who, where: str, seconds: float) -> Blocked:
    return Blocked(
        trigger_id,
        storable(who.label)[:500],
        storable(where)[:500],  # the name of a file need be no text
        int(seconds * 1e6),
        dag_id=who.dag_id[:250],
        task_id=who.task_id[:250],
    )


def _callback(top: FrameType | None) -> CodeType | None:
    """The code the loop runs outside of all tasks; None when it waits for something to do."""
    if top is None or is_library(top.f_code.co_filename):
        return None
    code = top.f_code
    while top is not None:  # the callback itself, whatever it is in
        if not is_library(top.f_code.co_filename):
            code = top.f_code
        top = top.f_back
    return code


def _where(top: FrameType | None) -> str:
    """``file:line in function`` of the user's code that blocks; empty when there is none."""
    return place_of(calls_of(top))


def _code_of(step: object) -> str:
    """``file:line in function``, where the user's code begins that a step or callback executes."""
    found = getattr(step, "cr_code", None)  # of a coroutine
    if found is None:
        callback = getattr(step, "_callback", None)  # of asyncio's Handle
        if isinstance(callback, BuiltinFunctionType):
            return f"{callback.__name__}(), which the loop was to call"
        found = getattr(callback, "__code__", None)
    if not isinstance(found, CodeType) or is_library(found.co_filename):
        return ""
    return f"{found.co_filename}:{found.co_firstlineno} in {found.co_name}"
