"""Whether a runner hangs: it has said nothing for too long, of the time in which it could have.

A false alarm costs every trigger of the runner its place, and comes when the machine is busiest.
So three things are not held against a runner: time in which we did not listen ourselves (looks are
counted, no clock is read: after a suspend both sides are behind), time that its main thread waited
for a CPU, and, until it has said its first word, a slow disk.

A process that is stopped (SIGSTOP) is another case: it will not go on by itself, whatever the load.
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = [
    "LOOK_S",
    "SILENCE_S",
    "STARTING_S",
    "STOPPED_S",
    "Pulse",
    "Sample",
    "memory_mb",
    "sample",
    "schedstat",
]

LOOK_S = 0.25
SILENCE_S = 5.0
# Until the first word a cold disk may have to give all of Python.
STARTING_S = 10.0
STOPPED_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """What the kernel says of a thread.

    Attributes:
        state: one letter, as in ``/proc/PID/stat``.
        ran: nanoseconds that it has run.
        starved: nanoseconds that it was ready to run and had no CPU; one stretch of waiting is
            added when it is over.
        turns: how often it was given a CPU.
    """

    state: str
    ran: int
    starved: int
    turns: int = 0


def schedstat(folder: str) -> tuple[int, int, int]:
    """Nanoseconds on a CPU, nanoseconds that it waited for one, and times it was given one.

    Args:
        folder: of a thread, below ``/proc``.

    Raises:
        OSError: there is no such thread, or the kernel does not tell.
        ValueError: it tells something else.
    """
    with open(f"{folder}/schedstat", "rb", buffering=0) as file:
        ran, starved, turns = file.read().split()
    return int(ran), int(starved), int(turns)


def sample(pid: int, thread: int | None = None) -> Sample | None:
    """Look at a thread of a process; None when there is none, or the kernel does not tell.

    Args:
        pid: the process.
        thread: its kernel id; None: the main thread.
    """
    folder = f"/proc/{pid}/task/{pid if thread is None else thread}"
    try:
        with open(f"{folder}/stat", "rb", buffering=0) as file:
            state = file.read(4096).rpartition(b")")[2].split(maxsplit=1)[0]
        return Sample(state.decode(), *schedstat(folder))
    except (OSError, ValueError, IndexError):
        return None


def memory_mb(pid: int) -> float:
    """The resident memory of a process in MiB; 0 when there is none."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE / (1 << 20)
    except (OSError, IndexError):
        return 0.0


class Pulse:
    """Counts the silence of one runner in looks, one every :data:`LOOK_S` seconds.

    Attributes:
        ready: it has said something: its loop turns, and triggers may run in it.
        stopped: what is wrong with it is that it was stopped.
    """

    def __init__(self) -> None:
        self.ready = False
        self.stopped = False
        self._silent_s = 0.0
        self._stopped_s = 0.0
        self._before: Sample | None = None

    def heard(self) -> None:
        """It has said something."""
        self.ready = True
        self._silent_s = 0.0

    def look(self, now: Sample | None) -> str | None:
        """Another look has come.

        Args:
            now: what the kernel says; None: it does not tell, and nothing excuses silence.

        Returns:
            What is wrong with it, in words; None while nothing is.
        """
        before, self._before = self._before, now
        self._silent_s += LOOK_S - _excused_s(before, now)
        self._stopped_s = self._stopped_s + LOOK_S if now and now.state == "T" else 0.0
        if self._stopped_s >= STOPPED_S:
            self.stopped = True
            return f"it was stopped for {STOPPED_S:g} s"
        limit = SILENCE_S if self.ready else STARTING_S
        if self._silent_s < limit:
            return None
        return f"it was silent for {limit:g} s" + ("" if self.ready else " from its start")


def _excused_s(before: Sample | None, now: Sample | None) -> float:
    """Seconds since the last look in which it had no CPU."""
    if before is None or now is None or not now.ran:  # a kernel that does not count says 0
        return 0.0
    if now.state == "R" and now.ran == before.ran:
        return LOOK_S  # it waits, and how long is told only when that is over
    # A long stretch that is over now was excused look by look: what counts is capped.
    return min(LOOK_S, (now.starved - before.starved) / 1e9)
