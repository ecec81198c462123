"""Whether a task process may run another task when its own has ended (``worker.isolation``).

It may if nobody can tell from outside that a task has run in it. What a task changed inside, in
modules that it imported, is not looked for: who has processes reused has said that it is harmless.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal
import logging
import os
import signal
import sys
from typing import Any

from roost.support.osproc import children
from roost.support.wire import Outcome, TaskSpec

__all__ = ["MOST_TASKS", "Stay", "may_share"]

MOST_TASKS = 100
"""After so many tasks a process ends, whatever it has grown to."""

_MOST_GROWTH_PAGES = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
_SIGNALS = range(1, signal.NSIG)


def may_share(spec: TaskSpec) -> bool:
    """Whether a dispatch may run where others have: not as another user, and no callback."""
    return spec.run_as_user is None and spec.callback is None


class Stay:
    """The state of a task process before its first task, to which it must have come back.

    Args:
        most: tasks that one process runs.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._pages = _pages()
        self._state = _state()

    def allows(self, spec: TaskSpec, outcome: Outcome) -> bool:
        """Whether another task may follow this one; to be asked once of each."""
        self._left -= 1
        return (
            self._left > 0
            and may_share(spec)
            and outcome.kind in ("success", "deferred", "skipped")
            and not children()
            and _pages() - self._pages <= _MOST_GROWTH_PAGES
            and self._state is not None
            and _state() == self._state
        )


def _pages() -> int:
    """Resident memory, in pages."""
    return int(_read("/proc/self/statm").split()[1])


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(8192)


def _state() -> tuple[Any, ...] | None:
    """What a task may leave behind beside memory; None: that cannot be seen."""
    try:
        mask = os.umask(0o077)
        os.umask(mask)
        root = logging.getLogger()
        return (
            os.getcwd(),
            mask,
            dict(os.environ),
            os.listdir("/proc/self/task"),
            # That of the listing itself is in it as well, always the lowest that is free.
            sorted(os.listdir("/proc/self/fd")),
            [_signal.getsignal(number) for number in _SIGNALS],
            [_signal.getitimer(which) for which in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
            list(sys.path),
            (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
            (root.level, logging.root.manager.disable, [id(one) for one in root.handlers]),
            (os.getuid(), os.getgid(), os.getpgrp(), os.getpriority(os.PRIO_PROCESS, 0)),
            (_read("/proc/self/limits"), os.sched_getaffinity(0)),
        )
    except OSError:
        return None
