"""Task processes that have run a task and wait for another (``worker.isolation``)."""

from __future__ import annotations

import functools
import socket
from typing import NamedTuple

from roost.support.osproc import kill_group
from roost.worker.nursery import Version
from roost.worker.reactor import Reactor, Timer

__all__ = ["Process", "Resting"]


class Process(NamedTuple):
    """A task process that stays.

    Attributes:
        process_id: the dispatch that it was forked for; its template knows it by that.
        template: number of that template.
        line: the supervisor's end of its line. It ends when that is closed.
    """

    process_id: int
    template: int
    version: Version
    pid: int
    line: socket.socket


class Resting:
    """Those that wait, by the version of the DAG file that they have loaded.

    Args:
        reactor: watches their lines.
        idle_us: after this long without a task one is let go.
    """

    def __init__(self, reactor: Reactor, idle_us: int) -> None:
        self._reactor = reactor
        self._idle_us = idle_us
        self._of: dict[Version, dict[int, tuple[Process, Timer]]] = {}

    def put(self, process: Process) -> None:
        """One has nothing to do; its line is watched already."""
        self._reactor.rewatch(process.line, functools.partial(self._hear, process))
        timer = self._reactor.after(self._idle_us, functools.partial(self._let_go, process))
        self._of.setdefault(process.version, {})[process.process_id] = (process, timer)

    def take(self, version: Version) -> Process | None:
        """The one that has rested for the shortest time, so that the others may end; or None."""
        while processes := self._of.get(version):
            process, _ = processes[next(reversed(processes))]
            self._remove(process)
            if _is_quiet(process.line):
                return process
            self._reactor.close_socket(process.line)  # it has just ended
        return None

    def drop(self, process: Process) -> None:
        """It has ended, whether its line shows that already or not; it may not be here."""
        if process.process_id in self._of.get(process.version, {}):
            self._let_go(process)

    def close(self) -> None:
        """Let all go."""
        for processes in list(self._of.values()):
            for process, _ in list(processes.values()):
                self._let_go(process)

    def _remove(self, process: Process) -> None:
        processes = self._of[process.version]
        _, timer = processes.pop(process.process_id)
        self._reactor.cancel(timer)
        if not processes:
            del self._of[process.version]

    def _let_go(self, process: Process) -> None:
        self._remove(process)
        self._reactor.close_socket(process.line)

    def _hear(self, process: Process) -> None:
        """It has ended, or it speaks without being asked: then it must end."""
        try:
            said = bool(process.line.recv(1))
        except OSError:
            said = False
        self._let_go(process)
        if said:
            kill_group(process.pid)


def _is_quiet(line: socket.socket) -> bool:
    """Whether a line is open, and nothing came over it."""
    try:
        line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
