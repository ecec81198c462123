"""Ending the processes that a task left behind, however they detached themselves.

A zygote and its templates are subreapers: a daemonised grandchild (double fork, setsid) whose
parents have ended becomes their child, and shows in their list of children without being known.
What a task has started so that it outlives it (:mod:`roost.support.detached`) says so by a mark.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Container
from contextlib import suppress

from roost.support.detached import is_detached
from roost.support.osproc import children, read_environ

__all__ = ["mark_of", "sweep"]

_ROUNDS = 200
_PATIENCE_S = 2.0


def mark_of(pid: int, name: str) -> bytes | None:
    """The value of a mark in the initial environment of ``pid``; None when it carries none."""
    _, found, rest = (b"\0" + read_environ(pid)).partition(b"\0" + name.encode() + b"=")
    return rest.partition(b"\0")[0] if found else None


def sweep(known: Container[int], spared: Callable[[int], bool]) -> None:
    """SIGKILL and reap every child that is neither ``known`` nor ``spared``, and its offspring.

    Detached commands and what they started are spared, too.

    When a child ends, its own children become ours: hence the rounds. A process that does not
    end (it hangs in the kernel) is left to the next sweep after two seconds.
    """
    deadline = time.monotonic() + _PATIENCE_S
    for _ in range(_ROUNDS):
        strangers = [
            pid
            for pid in children() or ()
            if pid not in known and not spared(pid) and not is_detached(pid)
        ]
        if not strangers or time.monotonic() > deadline:
            return
        for pid in strangers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in strangers:
            _reap(pid, deadline)


def _reap(pid: int, deadline: float) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
