"""The runner's end of the line to its supervisor: work in, and out what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from roost.support.frames import FrameBuffer, pack
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.messages import FromRunner, Reports, Said, ToRunner, Words, decode_to_runner

__all__ = ["GRACE_S", "Uplink"]

_BATCH = 500
_BATCH_BYTES = 4 << 20
# As long as a supervisor may take to read what is left, or may be gone without a word.
GRACE_S = 5.0


class Uplink(asyncio.Protocol):
    """One line, and the reports that wait until there is room on it.

    Args:
        opened: called when it can be written to.
        obey: takes what the supervisor says.
        flush: sends what else is to be said before a report; False: there was no room.
        lost: called when the supervisor is gone.
    """

    def __init__(
        self,
        opened: Callable[[], None],
        obey: Callable[[ToRunner], None],
        flush: Callable[[], bool],
        lost: Callable[[], None],
    ) -> None:
        self._opened = opened
        self._obey = obey
        self._flush_words = flush
        self._lost = lost
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._reports: list[TriggerReport] = []
        self._reported = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    # -- what asyncio calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream socket's transport
        self._opened()

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._obey(decode_to_runner(body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._gone.set()
        self._lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what the runner calls -----------------------------------------------------------------

    def send(self, message: FromRunner) -> None:
        """Write a message at once, whatever waits; nobody reads it where the supervisor is gone."""
        if self._transport is not None:
            self._transport.write(pack(message))

    def send_words(self, said: list[Said]) -> bool:
        """Write what triggers said; False: there is no room for it now."""
        if self._transport is None or not self._writable.is_set():
            return False
        self.send(Words(said))
        return True

    def report(self, report: TriggerReport) -> None:
        """Have a report sent soon, together with others."""
        self._reports.append(report)
        self._reported.set()

    async def run(self) -> None:
        """Send reports until cancelled."""
        while True:
            await self._reported.wait()
            await self.flush()

    async def flush(self) -> None:
        """Send all reports that wait."""
        while self._reports:
            await self._writable.wait()
            batch: list[TriggerReport] = []
            size = 0
            for report in self._reports[:_BATCH]:
                batch.append(report)
                size += report.size
                if size > _BATCH_BYTES:
                    break
            del self._reports[: len(batch)]
            self._flush_words()  # what a trigger said comes before what became of it
            self.send(Reports(batch))
        self._reported.clear()

    async def hang_up(self) -> None:
        """Close the line when everything is written, or the supervisor does not read it in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._transport is not None and not self._flush_words():
                    await self._writable.wait()
        if self._transport is not None:
            self._transport.close()  # sends what is buffered first
            await asyncio.wait_for(self._gone.wait(), GRACE_S)
