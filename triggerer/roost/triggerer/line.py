"""The supervisor's end of the line to a runner: messages out, held back while it does not read,
and messages in."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

import anyio
import msgspec

from roost.support.frames import FrameBuffer, FrameTooLarge, pack
from roost.triggerer.messages import FromRunner, ToRunner, decode_from_runner

__all__ = ["NO_MESSAGE", "Line", "RunnerGone"]

# More than that which a runner has not read keeps those who write to it waiting.
_MOST_UNREAD = 8 << 20
_CHUNK = 1 << 18
# What reading raises where the bytes are no message.
NO_MESSAGE = (FrameTooLarge, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class RunnerGone(Exception):
    """The runner ended while it was written to; a new one is on its way."""


class Line:
    """One end of a socketpair, whose other end a runner has.

    Args:
        end: this one.
        heard: called when bytes have come, whatever they say.
    """

    def __init__(self, end: socket.socket, heard: Callable[[], None]) -> None:
        end.setblocking(False)
        self._end = end
        self._heard = heard
        self._frames = FrameBuffer()
        self._unread: deque[memoryview] = deque()
        self._unread_bytes = 0
        self._more = anyio.Event()  # there is something to write
        self._less = anyio.Event()  # something was written, or never will be
        self._gone = False

    async def send(self, message: ToRunner) -> None:
        """Have a message written; a runner that starts or hangs keeps its sender from nothing else.

        Raises:
            RunnerGone: it ended meanwhile.
            FrameTooLarge: the message is.
        """
        while not self._gone and self._unread_bytes > _MOST_UNREAD:
            await self._less.wait()
        if self._gone:
            raise RunnerGone
        data = memoryview(pack(message))
        self._unread.append(data)
        self._unread_bytes += len(data)
        self._more.set()

    async def write(self) -> None:
        """Write what is sent until cancelled, or until the runner has ended."""
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            while self._unread:
                try:
                    sent = self._end.send(self._unread[0])
                except BlockingIOError:
                    await anyio.wait_writable(self._end)
                    continue
                except OSError:
                    return  # as whoever reads the line sees
                self._unread_bytes -= sent
                self._unread[0] = self._unread[0][sent:]
                if not self._unread[0]:
                    self._unread.popleft()
                self._less.set()
                self._less = anyio.Event()

    async def readable(self) -> None:
        """Return when there is something to read, or nothing more will come."""
        await anyio.wait_readable(self._end)

    def read(self, take: Callable[[FromRunner], None]) -> bool:
        """Take what is there to read; False when nothing more will come.

        Raises:
            NO_MESSAGE: one of these: what has come is none.
        """
        while True:
            try:
                data = self._end.recv(_CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._heard()
            for body in self._frames.feed(data):
                take(decode_from_runner(body))

    def hang_up(self) -> None:
        """The runner has ended: whoever waits to write to it is told, not forgotten."""
        self._gone = True
        self._less.set()

    def close(self) -> None:
        """Give the socket back."""
        self._end.close()
