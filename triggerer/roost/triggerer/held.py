"""Sees from outside that a step holds the interpreter to itself, and has it say where.

A call that keeps the GIL - a slow regular expression, a sort, a hash - stops the runner's watchdog
as well as its loop (D20). So the watchdog counts its looks in the memory that it shares with its
supervisor. When they stand still while the loop's thread runs, or sleeps, in one and the same step,
the supervisor sends a signal whose handler is written in C (``faulthandler``): it writes the stack
into that memory's file, without waiting for the GIL.

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
from roost.triggerer.places import UNSEEN, Call, place_of
from roost.triggerer.pulse import Sample, sample

__all__ = ["LOOK_S", "Held", "Stall", "calls_in"]

LOOK_S = 0.06
# With what passes before the first look that finds it, a block is told of within 250 ms.
_HELD_NS = 120_000_000
_WAIT_S, _WAITS = 0.005, 8
_MOST_BYTES = 1 << 16
_CALL = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Stall(NamedTuple):
    """One step that goes on while nobody else gets the interpreter.

    Attributes:
        trigger_id: whose step.
        seconds: for how long its thread has run, or has slept, since that was first seen.
    """

    trigger_id: int
    seconds: float


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
        self._mark: tuple[int, int] | None = None  # whose step, and the watchdog's looks
        self._since: tuple[Sample, Sample] | None = None  # loop's thread and watchdog's, then
        self._told = False
        self._looks = 0  # of ours, since then: no clock, for both sides may have been suspended

    def look(self) -> Stall | None:
        """What has gone on for too long and was not told of yet."""
        step, _, looks, watchdog = memoryview(self._shared[:SHARED_BYTES]).cast("q")
        mark = step, looks
        if not step or not watchdog:
            self._mark = None
            return None
        if mark != self._mark:
            self._mark, self._told, self._looks = mark, False, 0
            self._since = self._sample(watchdog)
            return None
        now = None if self._told or self._since is None else self._sample(watchdog)
        if now is None or self._since is None:
            return None
        self._looks += 1
        (loop, watch), (loop_was, watch_was) = now, self._since
        held = loop.ran - loop_was.ran
        if loop.state == "S" and loop.turns - loop_was.turns <= 1:
            held = round(self._looks * LOOK_S * 1e9)
        if held < _HELD_NS or watch.state == "R" or watch.starved - watch_was.starved > held // 2:
            return None
        self._told = True
        return Stall(step, held / 1e9)

    def _sample(self, watchdog: int) -> tuple[Sample, Sample] | None:
        loops, its = sample(self._pid), sample(self._pid, watchdog)
        return None if loops is None or its is None else (loops, its)

    async def where(self) -> str:
        """``file:line in function`` of what the loop's thread executes."""
        with suppress(OSError):
            os.ftruncate(self._file, STACK_AT)
            os.lseek(self._file, STACK_AT, os.SEEK_SET)  # the runner writes at the same offset
            os.kill(self._pid, STACK_SIGNAL)
        text = before = b""
        for _ in range(_WAITS):
            await anyio.sleep(_WAIT_S)
            with suppress(OSError):
                text = os.pread(self._file, _MOST_BYTES, STACK_AT)
            if text and text == before:
                break
            before = text
        return place_of(calls_in(text.decode(errors="replace"))) or UNSEEN


def calls_in(stack: str) -> list[Call]:
    """The calls in what ``faulthandler`` wrote, the innermost first."""
    return [Call(file, int(line), name) for file, line, name in _CALL.findall(stack)]
