"""Sees from outside that a step, or an import, holds the interpreter to itself, and where.

A call that keeps the GIL - a slow regular expression, a sort, a hash - stops the runner's watchdog
as well as its loop (D20). So the watchdog counts its looks in the memory that it shares with its
supervisor. When they stand still while the loop's thread runs, or sleeps, in one and the same step,
the supervisor sends a signal whose handler is written in C (``faulthandler``): it writes the stack
into that memory's file, without waiting for the GIL. The same goes for the thread in which the code
of triggers is imported.

A machine that is too busy to let the watchdog look shows the same looks. It is told apart by what
the kernel has counted: then the watchdog waits for a CPU; for the GIL, it sleeps. Whoever waits for
the GIL wakes every 5 ms to ask for it: a thread that did not wake at all sleeps on its own account,
so that no step is named for what another thread holds.
"""

from __future__ import annotations

import mmap
import os
import re
from contextlib import suppress
from typing import NamedTuple

import anyio

from roost.triggerer.messages import SHARED_BYTES, STACK_AT, STACK_SIGNAL
from roost.triggerer.places import UNSEEN, Call, place_of, place_of_import
from roost.triggerer.pulse import Sample, sample

__all__ = ["LOOK_S", "Held", "Stall", "calls_in"]

LOOK_S = 0.06
# With what passes before the first look that finds it, a block is told of within 250 ms.
_HELD_NS = 120_000_000
_WOKE = 8
_WAIT_S, _WAITS = 0.005, 8
_MOST_BYTES = 1 << 16
_CALL = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Stall(NamedTuple):
    """One step, or import, that goes on while nobody else gets the interpreter.

    Attributes:
        trigger_id: whose step, or for whom something is imported.
        seconds: for how long its thread has run, or has slept, since that was first seen.
        thread: the kernel's id of that.
        importing: it is an import.
        ran: its thread has not slept.
    """

    trigger_id: int
    seconds: float
    thread: int = 0
    importing: bool = False
    ran: bool = True


class _Suspicion:
    """That one thread holds the GIL: since when it has done the same while nobody looked."""

    def __init__(self) -> None:
        self._mark: tuple[int, int, int] | None = None  # thread, for whom, the watchdog's looks
        self._since: tuple[Sample, Sample] | None = None  # that thread and the watchdog's, then
        self._looks = 0  # of ours, since then: no clock, for both sides may have been suspended
        self.told = False

    def look(self, pid: int, thread: int, trigger_id: int, looks: int, dog: int) -> Stall | None:
        """What has gone on for too long and was not told of yet.

        Args:
            pid: the runner.
            thread: which one.
            trigger_id: whose code it executes; 0: nobody's.
            looks: how often the watchdog has looked.
            dog: the watchdog's thread.
        """
        mark = thread, trigger_id, looks
        if not trigger_id or not dog:
            self._mark = None
            return None
        if mark != self._mark:
            self._mark, self.told, self._looks = mark, False, 0
            self._since = _samples(pid, thread, dog)
            return None
        now = None if self.told or self._since is None else _samples(pid, thread, dog)
        if now is None or self._since is None:
            return None
        self._looks += 1
        (its, watch), (its_then, watch_then) = now, self._since
        held = its.ran - its_then.ran
        slept = its.state == "S" and its.turns - its_then.turns <= 1
        if slept:
            held = round(self._looks * LOOK_S * 1e9)
        if held < _HELD_NS or not _waits_for_gil(watch, watch_then, held):
            return None
        return Stall(trigger_id, held / 1e9, thread, ran=not slept)


def _waits_for_gil(now: Sample, then: Sample, held: int) -> bool:
    """Whether the watchdog has not looked for want of the GIL, and not of a CPU.

    On a crowded machine it lacks both, all the time: then it is told by how often it was put on a
    CPU without ending its look, and did next to nothing there.
    """
    if now.turns - then.turns >= _WOKE and now.ran - then.ran < held // 4:
        return True
    return now.state != "R" and now.starved - then.starved <= held // 2


def _samples(pid: int, thread: int, watchdog: int) -> tuple[Sample, Sample] | None:
    its, watch = sample(pid, thread), sample(pid, watchdog)
    return None if its is None or watch is None else (its, watch)


class Held:
    """Looks at one runner, every :data:`LOOK_S` seconds.

    Args:
        pid: the runner.
        file: descriptor of the memory shared with it.
        shared: that memory.
    """

    def __init__(self, pid: int, file: int, shared: mmap.mmap) -> None:
        self._pid = pid
        self._file = file
        self._shared = shared
        self._step, self._import = _Suspicion(), _Suspicion()

    def look(self) -> Stall | None:
        """What has gone on for too long and was not told of yet."""
        words = memoryview(self._shared[:SHARED_BYTES]).cast("q")
        step, importer, looks, watchdog, thread = words
        in_step = self._step.look(self._pid, self._pid, step, looks, watchdog)
        in_import = self._import.look(self._pid, thread, importer, looks, watchdog)
        # Where one has run, the other sleeps on its own account; and both can be told of later.
        if in_import is not None and (in_step is None or (in_import.ran and not in_step.ran)):
            self._import.told = True
            return in_import._replace(importing=True)
        if in_step is not None:
            self._step.told = True
        return in_step

    async def where(self, stall: Stall) -> str:
        """``file:line in function`` of what the thread executes that holds the GIL."""
        with suppress(OSError):
            os.ftruncate(self._file, STACK_AT)
            os.lseek(self._file, STACK_AT, os.SEEK_SET)  # the runner writes at the same offset
            os.kill(stall.thread, STACK_SIGNAL)  # the kernel prefers the thread of this id
        text = before = b""
        for _ in range(_WAITS):
            await anyio.sleep(_WAIT_S)
            with suppress(OSError):
                text = os.pread(self._file, _MOST_BYTES, STACK_AT)
            if text and text == before:
                break
            before = text
        place = place_of_import if stall.importing else place_of
        return place(calls_in(text.decode(errors="replace"))) or UNSEEN


def calls_in(stack: str) -> list[Call]:
    """The calls in what ``faulthandler`` wrote, the innermost first."""
    return [Call(file, int(line), name) for file, line, name in _CALL.findall(stack)]
