"""What goes between tasks and the database: outcomes on their way in, answers on their way out.

Both wait as long as the database is away, and one item that it refuses does not hold up others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from roost.support.doorbell import Doorbell
from roost.support.service import Patience, Wake
from roost.support.task_requests import Reply, RunCreate
from roost.support.wire import Outcome
from roost.worker.attendant import Asked, Ended
from roost.worker.ledger import Ledger

__all__ = ["Inquiries", "Outbox"]

log = logging.getLogger("roost.worker")

# While much runs, transactions are at least this far apart, so that several outcomes share one.
_PACE_S = 0.02


class Outbox:
    """Outcomes to be stored. The scheduler is told after each batch.

    Args:
        ledger: stores them.
        patience: waits for the database.
        bell: rings the scheduler.
        is_busy: says whether so much runs that more outcomes will come soon.
    """

    def __init__(
        self,
        ledger: Ledger,
        patience: Patience,
        bell: Doorbell,
        is_busy: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._patience = patience
        self._bell = bell
        self._is_busy = is_busy
        self._wake = Wake()
        self._waiting: list[Ended] = []
        self._storing: list[Ended] = []
        self._emptied = anyio.Event()

    def add(self, ended: Sequence[Ended]) -> None:
        """Take outcomes."""
        self._waiting += ended
        self._wake.set()

    def clear(self) -> None:
        """Forget what is not stored yet: nobody wants it any more."""
        self._waiting.clear()

    def dispatch_ids(self) -> set[int]:
        """Whose outcomes are waiting or being stored."""
        return {one.spec.dispatch_id for one in (*self._waiting, *self._storing)}

    async def wait_empty(self) -> None:
        """Return when nothing is left to store."""
        while self._waiting or self._storing:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    async def run(self) -> None:
        """Store until cancelled."""
        last = 0.0
        while True:
            await self._wake.wait()
            if self._is_busy():
                await anyio.sleep(max(0.0, last + _PACE_S - time.monotonic()))
            last = time.monotonic()
            self._storing, self._waiting = self._waiting, []
            if self._storing:
                await self._store(self._storing)
                self._storing = []
                self._bell.ring("scheduler")
            if not self._waiting:
                self._emptied.set()

    async def _store(self, batch: list[Ended]) -> None:
        try:
            await self._patience.until_done(partial(self._ledger.store, batch))
        except Exception as error:
            if len(batch) == 1:
                log.exception("dispatch %d: its outcome is refused", batch[0].spec.dispatch_id)
                batch = [_instead(batch[0], error)]
                await self._patience.until_done(partial(self._ledger.store, batch))
                return
            for one in batch:
                await self._store([one])


def _instead(ended: Ended, error: Exception) -> Ended:
    """What is stored instead of an outcome that the database refuses."""
    was = ended.outcome
    text = f"the task's result cannot be stored: {str(error).partition(chr(10))[0]!a}"
    outcome = Outcome("failed", was.started_at, was.ended_at, text, run_us=was.run_us)
    return Ended(ended.spec, outcome)


class Inquiries:
    """Requests of tasks to be answered, as many in one transaction as have come together.

    Args:
        ledger: answers them.
        patience: waits for the database.
        reply: hands an answer to a task, by dispatch id.
        started: told when tasks may have started runs.
    """

    def __init__(
        self,
        ledger: Ledger,
        patience: Patience,
        reply: Callable[[int, Reply], None],
        started: Callable[[], object] = lambda: None,
    ) -> None:
        self._started = started
        self._ledger = ledger
        self._patience = patience
        self._reply = reply
        self._wake = Wake()
        self._waiting: list[Asked] = []

    def add(self, asked: Sequence[Asked]) -> None:
        """Take requests."""
        self._waiting += asked
        self._wake.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting, []
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[Asked]) -> None:
        try:
            replies = await self._patience.until_done(partial(self._ledger.answer, batch))
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one])
                return
            log.warning("a request of dispatch %d failed: %s", batch[0].spec.dispatch_id, error)
            replies = [Reply(error=str(error).partition("\n")[0])]
        if any(isinstance(one.request, RunCreate) for one in batch):
            self._started()
        for one, reply in zip(batch, replies, strict=True):
            self._reply(one.spec.dispatch_id, reply)
