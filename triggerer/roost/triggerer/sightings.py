"""What watchers saw on its way to the database, which has it before they go on (D13)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

import anyio
from sqlalchemy.exc import DBAPIError

from roost.models.queries import watchers
from roost.support.service import Wake
from roost.support.stats import Stats
from roost.triggerer.database import Database
from roost.triggerer.keeper import Keeper, RunnerGone
from roost.triggerer.messages import Kept, Seen, Sighting

__all__ = ["Sightings"]

log = logging.getLogger(__name__)

_BATCH = 500

_Key = tuple[int, int]


class Sightings:
    """Stores events of watchers in batches, in the order they came, and sends the receipts.

    Args:
        job_id: the claim under which the watchers ran.
        keepers: of the runners; each knows its own receipts.
        on_stored: called after events were committed.
    """

    def __init__(
        self,
        database: Database,
        job_id: int,
        stats: Stats,
        keepers: Sequence[Keeper],
        on_stored: Callable[[], None],
    ) -> None:
        self._db = database
        self._job_id = job_id
        self._stats = stats
        self._keepers = keepers
        self._on_stored = on_stored
        self._pending: list[Sighting] = []
        self._wake = Wake()
        self._flushing = anyio.Lock()  # the last flush of all comes while another may be at it

    def put(self, seen: Seen) -> None:
        """Take what watchers saw; it is stored soon."""
        self._pending += seen.sightings
        self._wake.set()

    async def run(self) -> None:
        """Store what comes until cancelled."""
        while True:
            await self.flush()
            await self._wake.wait()

    async def flush(self) -> None:
        """Store everything that is pending."""
        async with self._flushing:
            while self._pending:
                await self._flush_some()

    async def _flush_some(self) -> None:
        batch = self._pending[:_BATCH]
        stored = await self._store(batch)
        del self._pending[: len(batch)]
        self._count(batch, stored)
        receipts = [
            (one.trigger_id, one.epoch, one.number, (one.trigger_id, one.number) in stored)
            for one in batch
            if one.trouble is None
        ]
        for keeper in self._keepers if receipts else ():
            with contextlib.suppress(RunnerGone):
                await keeper.send(Kept(receipts))

    def _count(self, batch: list[Sighting], stored: set[_Key]) -> None:
        events = 0
        for one in batch:
            if (one.trigger_id, one.number) not in stored:
                log.info("what trigger %d saw came too late, or cannot be stored", one.trigger_id)
            elif one.trouble is None:
                events += 1
            else:
                self._stats.incr("triggers.watcher_failures")
                log.warning("trigger %d of a watcher %s", one.trigger_id, one.trouble)
        if events:
            self._stats.incr("triggers.watcher_events", events)
            self._on_stored()

    async def _store(self, batch: list[Sighting]) -> set[_Key]:
        """Store a batch; what the database cannot take is its own watcher's trouble only."""
        step = partial(watchers.store, job_id=self._job_id, seen=[_row(one) for one in batch])
        try:
            return await self._db.until_done(step)
        except (DBAPIError, UnicodeDecodeError) as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return await self._store(batch[:middle]) | await self._store(batch[middle:])
            why = str(getattr(error, "orig", error)).partition("\n")[0]
        log.warning("an event of trigger %d cannot be stored: %s", batch[0].trigger_id, why)
        return set()


def _row(one: Sighting) -> watchers.Sighting:
    extra = None if one.trouble is not None else bytes(one.extra).decode()
    return watchers.Sighting(
        one.trigger_id, one.epoch, one.number, extra, one.key, one.trouble
    )  # fmt: skip
