"""Killing what a worker that is dead has left running, found by the mark in its environment.

PDEATHSIG ends a dead worker's zygote, templates and tasks, but not what a task itself started.
Everything below a worker carries its token in ``/proc/<pid>/environ``, whatever session it is in.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from roost.worker.marks import TOKEN
from roost.worker.orphans import mark_of

__all__ = ["find_leftovers", "kill_leftovers"]

_ROUNDS = 100


def find_leftovers(token: str) -> list[int]:
    """The pids on this host that carry the token. Others' environments cannot be read."""
    wanted = token.encode()
    me = os.getpid()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != me and mark_of(pid, TOKEN) == wanted]


def kill_leftovers(token: str, *, patience_s: float = 5.0) -> list[int]:
    """SIGKILL everything of a dead worker's incarnation and wait until it is gone.

    Args:
        token: the incarnation (``job.token``); must not be that of a living worker.
        patience_s: longest wait, in seconds, for killed processes to end.

    Returns:
        The pids that were killed.
    """
    killed: list[int] = []
    deadline = time.monotonic() + patience_s
    for _ in range(_ROUNDS):
        # What was found may fork before it dies, so look again until nothing is found.
        found = find_leftovers(token)
        if not found or time.monotonic() > deadline:
            break
        killed += [pid for pid in found if _kill(pid, token, deadline)]
    return killed


def _kill(pid: int, token: str, deadline: float) -> bool:
    """Kill that very process: the mark is read again through a handle that pins the pid."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if mark_of(pid, TOKEN) != token.encode():
            return False
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        wait = max(0.0, deadline - time.monotonic())
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(wait * 1000)
        return True
    finally:
        os.close(handle)
