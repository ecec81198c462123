"""What watchers saw on its way to the database, which has it before they go on (D13)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from roost.models.queries import watchers
from roost.support.stats import Stats
from roost.triggerer.buffer import Buffer
from roost.triggerer.database import Database
from roost.triggerer.keeper import Keeper
from roost.triggerer.line import RunnerGone
from roost.triggerer.messages import Kept, Sighting

__all__ = ["Sightings"]

log = logging.getLogger(__name__)

_BATCH = 500

_Key = tuple[int, int]


class Sightings(Buffer[Sighting, _Key]):
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
        super().__init__(_BATCH)
        self._db = database
        self._job_id = job_id
        self._stats = stats
        self._keepers = keepers
        self._on_stored = on_stored

    async def _write(self, batch: list[Sighting]) -> set[_Key]:
        step = partial(watchers.store, job_id=self._job_id, seen=[_row(one) for one in batch])
        return await self._db.until_done(step)

    async def _refused(self, item: Sighting, why: str) -> set[_Key]:
        """What the database cannot take is its own watcher's trouble only."""
        log.warning("an event of trigger %d cannot be stored: %s", item.trigger_id, why)
        return set()

    async def _settle(self, batch: list[Sighting], stored: set[_Key]) -> None:
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


def _row(one: Sighting) -> watchers.Sighting:
    extra = None if one.trouble is not None else bytes(one.extra).decode()
    return watchers.Sighting(
        one.trigger_id, one.epoch, one.number, extra, one.key, one.trouble
    )  # fmt: skip
