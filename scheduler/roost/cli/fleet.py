"""The daemons of ``roost standalone``: forked from one preloaded process, watched, restarted.

Each is a process in its own session, so that Ctrl-C reaches only the parent, which then stops
them in order. They are forked, not executed: what all of them import is loaded once and its
memory shared. For that the parent stays single-threaded, and holds no database connection at the
moment of a fork (SQLite forbids to carry one across).
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from roost.exceptions import RoostException
from roost.support import osproc

__all__ = ["Daemon", "Entry", "preload"]

Entry = Callable[[], int]
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_HEALTHY_S = 60.0
_SHARED = (
    "anyio._backends._asyncio",
    "roost.scheduler.daemon",
    "roost.triggerer.daemon",
    "roost.worker.daemon",
)
_SERVICE_ONLY = ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


def preload() -> None:
    """Import what the daemons need and keep the collector from touching, so copying, its pages."""
    for module in _SHARED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


class Daemon:
    """One daemon of the fleet, over all its restarts.

    Args:
        kind: ``scheduler``, ``triggerer`` or ``worker``.
        run: its entry point; gives the exit code.
        log: file that its stdout and stderr are appended to.

    Attributes:
        pid: of the live process; 0 while there is none.
        handle: its pidfd, readable when it has ended; -1 while there is none.
        notices: the socket on which it says that it is ready.
        ready: whether it has said so since its last start.
        restart_at: monotonic moment of the next start; None unless one is due.
    """

    def __init__(self, kind: str, run: Entry, log: Path) -> None:
        self.kind = kind
        self.log = log
        self.pid = 0
        self.handle = -1
        self.ready = False
        self.restart_at: float | None = None
        self._run = run
        self._delay = _FIRST_DELAY_S
        self._started = 0.0
        self._address = f"roost-standalone-{os.getpid()}-{kind}"
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(f"\0{self._address}")
        self.notices.setblocking(False)

    def start(self, before_run: Callable[[], None]) -> None:
        """Fork the daemon.

        Args:
            before_run: called in the child first, to close what only the parent uses.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.ready, self.restart_at = False, None
        self._started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._become(parent, before_run)
        self.pid = pid
        self.handle = os.pidfd_open(pid)

    def _become(self, parent: int, before_run: Callable[[], None]) -> NoReturn:
        code = 1
        try:
            # The daemons drain when the parent is gone, whatever ended it.
            osproc.die_with_parent(parent, signal.SIGTERM)
            os.setsid()
            osproc.rename(f"roost-{self.kind}")
            _take_over(self.log)
            before_run()
            self.notices.close()
            for name in _SERVICE_ONLY:
                os.environ.pop(name, None)
            os.environ["NOTIFY_SOCKET"] = f"@{self._address}"
            code = self._run()
        except RoostException as error:
            sys.stderr.write(f"roost {self.kind}: {error}\n")
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def hear(self) -> bool:
        """Read the notices; True when it has just become ready."""
        was_ready = self.ready
        while True:
            try:
                lines = self.notices.recv(65536).decode(errors="replace").splitlines()
            except BlockingIOError:
                return self.ready and not was_ready
            self.ready = self.ready or "READY=1" in lines

    def reap(self) -> str:
        """Collect the process that has ended; says how it did, and plans the restart."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.handle)
        self.pid, self.handle = 0, -1
        now = time.monotonic()
        if now - self._started > _HEALTHY_S:
            self._delay = _FIRST_DELAY_S
        self.restart_at = now + self._delay
        self._delay = min(self._delay * 2, _LONGEST_DELAY_S)
        return osproc.describe_exit(status)

    def send(self, number: int) -> None:
        """Signal the process, if there is one. Its pid is ours until it is reaped."""
        if self.pid:
            os.kill(self.pid, number)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Close the notice socket."""
        self.notices.close()


def _take_over(log: Path) -> None:
    """Put the log in the place of stdout and stderr, and nothing in that of stdin."""
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(nothing)
    os.close(out)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
