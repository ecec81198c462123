"""Stopping a task from inside: its execution_timeout (D7) and SIGTERM from the worker."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from roost.dag import runtime
from roost.exceptions import TaskTerminated, TaskTimeout
from roost.support.clock import SECOND

__all__ = ["Interrupts", "holding"]

# What the task's own code swallowed is raised again after this.
_AGAIN_S = 5.0
# A request to the supervisor is not cut in two; look again after this.
_SOON_S = 0.01

_SIGNALS = (signal.SIGTERM, signal.SIGALRM)

log = logging.getLogger("roost.task")
_held = 0


@contextmanager
def holding() -> Iterator[set[signal.Signals]]:
    """Hold interrupts back during a few lines that must not be left half done.

    Yields the signal mask from before; a process started inside has to set it for itself.
    """
    global _held
    # The mask is this thread's only: in a task with threads the signal lands in another one, and
    # the handler still runs here. So the handler asks, too.
    _held += 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        _held -= 1
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stoppable(Protocol):
    def on_kill(self) -> None: ...


class Interrupts:
    """While this block is open, running out of time and SIGTERM raise in the task's code.

    ``on_kill()`` is called first, once, from the signal handler: what the task waits for may be
    just what ``on_kill`` ends. Outside the main thread, where no signal can be caught, the block
    does nothing; the worker enforces both from outside as well.

    Args:
        task: whose ``on_kill`` to call.
        timeout_us: run time that is left to it; None is no limit.
        limit_us: the whole ``execution_timeout``, for the message.
        name: what the limit is called, for the message.
    """

    def __init__(
        self,
        task: _Stoppable,
        timeout_us: int | None,
        limit_us: int | None,
        name: str = "execution_timeout",
    ) -> None:
        #: Whose ``on_kill`` to call; an instance of a mapped task is made inside the block.
        self.task = task
        self._name = name
        self._timeout_us = timeout_us
        self._limit_s = (limit_us or 0) / SECOND
        self._pid = os.getpid()
        self._told = False
        self._killed = False
        self._before: list[tuple[int, Any]] = []
        self._timer_before: tuple[float, float] | None = None

    def __enter__(self) -> None:
        if self._timeout_us is not None and self._timeout_us <= 0:
            raise self._error()
        try:
            for number in _SIGNALS:
                # Not signal.signal: it wraps handlers into enumerations, which costs a process
                # that was just forked a hundred microseconds.
                self._before.append((number, _signal.signal(number, self._signalled)))
        except ValueError:  # not the main thread
            return
        seconds = 0.0 if self._timeout_us is None else max(self._timeout_us / SECOND, 1e-6)
        self._timer_before = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)

    def __exit__(self, *_: object) -> None:
        if self._timer_before is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer_before)
        while self._before:
            number, handler = self._before.pop()
            _signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A child that the task forked inherits this handler, but it is not the task.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._told = self._told or number == signal.SIGTERM
        if _held or runtime.is_asking(frame):
            # Half a frame, or an answer left unread, would garble all that follows on the line.
            signal.setitimer(signal.ITIMER_REAL, _SOON_S, _AGAIN_S)
            return
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        self._kill()
        raise self._error()

    def _error(self) -> BaseException:
        if self._told:
            return TaskTerminated("the task was told to stop (SIGTERM)")
        return TaskTimeout(f"the task ran longer than its {self._name} ({self._limit_s:g} s)")

    def _kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        try:
            self.task.on_kill()
        except Exception:
            log.exception("on_kill() failed")
