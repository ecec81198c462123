"""Stopping a task from inside: its execution_timeout (D7) and SIGTERM from the worker."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

from roost.exceptions import TaskTerminated, TaskTimeout
from roost.support.clock import SECOND

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["Interrupts"]

# A timeout that the task's own code swallowed is raised again after this.
_AGAIN_S = 5.0

log = logging.getLogger("roost.task")


class Interrupts:
    """While this block is open, running out of time and SIGTERM raise in the task's code.

    ``on_kill()`` is called first, once, from the signal handler: what the task waits for may be
    just what ``on_kill`` ends. Outside the main thread, where no signal can be caught, the block
    does nothing; the worker enforces both from outside as well.

    Args:
        task: whose ``on_kill`` to call.
        timeout_us: run time that is left to it; None is no limit.
        limit_us: the whole ``execution_timeout``, for the message.
    """

    def __init__(self, task: BaseOperator, timeout_us: int | None, limit_us: int | None) -> None:
        self._task = task
        self._timeout_us = timeout_us
        self._limit_s = (limit_us or 0) / SECOND
        self._killed = False
        self._before: list[tuple[signal.Signals, Any]] = []
        self._timer_before: tuple[float, float] | None = None

    def __enter__(self) -> None:
        if self._timeout_us is not None and self._timeout_us <= 0:
            raise self._too_long()
        try:
            self._catch(signal.SIGTERM, self._terminated)
            if self._timeout_us is None:
                return
            self._catch(signal.SIGALRM, self._timed_out)
        except ValueError:  # not the main thread
            return
        seconds = max(self._timeout_us / SECOND, 1e-6)
        self._timer_before = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)

    def __exit__(self, *_: object) -> None:
        if self._timer_before is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer_before)
        while self._before:
            number, handler = self._before.pop()
            signal.signal(number, handler)

    def _catch(self, number: signal.Signals, handler: Any) -> None:
        self._before.append((number, signal.signal(number, handler)))

    def _too_long(self) -> TaskTimeout:
        return TaskTimeout(f"the task ran longer than its execution_timeout ({self._limit_s:g} s)")

    def _timed_out(self, _number: int, _frame: FrameType | None) -> None:
        self._kill()
        raise self._too_long()

    def _terminated(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._kill()
        raise TaskTerminated("the task was told to stop (SIGTERM)")

    def _kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        try:
            self._task.on_kill()
        except Exception:
            log.exception("on_kill() failed")
