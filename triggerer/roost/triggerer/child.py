"""A runner as a child process, from its supervisor's side: its start, what it shares, its end."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import anyio

from roost.support.frames import FrameBuffer
from roost.triggerer.health import Health
from roost.triggerer.line import NO_MESSAGE, Line
from roost.triggerer.messages import SHARED_BYTES, SLOT_BYTES, FromRunner, decode_from_runner

__all__ = ["Child"]

_CHUNK = 1 << 18
# Nothing that a watchdog tells is longer.
_LONGEST_NOTE = 1 << 16


class Child:
    """One runner process, its line and the pipe of its watchdog.

    Args:
        env: its environment.
        health: what is to be seen of it.

    Attributes:
        file: descriptor of the memory shared with it.
        shared: that memory.
        started: when, as ``time.monotonic()`` tells.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, env: dict[str, str], health: Health) -> None:
        self.health = health
        ours, theirs = socket.socketpair()
        self.line = Line(ours, health.pulse.heard)
        self._notes, their_notes = os.pipe()
        self.file = slot = os.memfd_create("roost-runner")
        os.ftruncate(slot, SHARED_BYTES)
        self.shared = mmap.mmap(slot, SHARED_BYTES, prot=mmap.PROT_READ)
        try:
            self._process = subprocess.Popen(  # from the main thread; takes some milliseconds
                [
                    sys.executable, "-P", "-m", "roost.triggerer.runner",
                    str(theirs.fileno()), str(their_notes), str(slot),
                ],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # what triggers print is log, wherever we log
                pass_fds=(theirs.fileno(), their_notes, slot),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(their_notes)
        os.set_blocking(self._notes, False)
        self._note_frames = FrameBuffer(_LONGEST_NOTE)
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def noted(self) -> None:
        """Return when the watchdog has told something, or never will again."""
        await anyio.wait_readable(self._notes)

    def read_notes(self, take: Callable[[FromRunner], None]) -> bool:
        """Take what the watchdog has told; False when nothing more will come.

        Raises:
            NO_MESSAGE: one of these: what has come is none. It is skipped.
        """
        data = os.read(self._notes, _CHUNK)
        try:
            for body in self._note_frames.feed(data):
                take(decode_from_runner(body))
        except NO_MESSAGE:
            self._note_frames = FrameBuffer(_LONGEST_NOTE)
            raise
        return bool(data)

    def at_work(self) -> tuple[int, int]:
        """Whose step, and whose import, is executing or was at its end; 0: nobody's."""
        step, importing = memoryview(self.shared[:SLOT_BYTES]).cast("q")
        return step, importing

    async def exited(self) -> None:
        """Return when the process has ended."""
        pidfd = os.pidfd_open(self.pid)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            anyio.notify_closing(pidfd)
            os.close(pidfd)

    def kill(self) -> None:
        """SIGKILL to the runner and to what its triggers started in its session."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def reap(self) -> int:
        """See it end for good; gives its exit code, or the signal that ended it, negative."""
        self.kill()
        status = self._process.wait()
        self.line.hang_up()
        return status

    def close(self) -> None:
        """Give back what was shared with it."""
        self.line.close()
        os.close(self._notes)
        os.close(self.file)
        self.shared.close()
