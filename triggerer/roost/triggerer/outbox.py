"""Reports of triggers on their way to the database, which has them before anybody acts on them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import msgspec

from roost.models.queries import trigger_events, triggers
from roost.support.clock import now_us
from roost.support.stats import Stats
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.buffer import Buffer
from roost.triggerer.database import Database

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

_BATCH = 1_000
_BATCH_BYTES = 4 << 20


class Outbox(Buffer[TriggerReport, int]):
    """Stores reports in batches, one transaction each, in the order they came.

    Args:
        job_id: the claim under which the triggers ran.
        on_stored: called with reports that need no more care, stored or refused, and with the ids
            of those that were stored.
        seal: encrypts payloads (D22).
    """

    def __init__(
        self,
        database: Database,
        job_id: int,
        stats: Stats,
        on_stored: Callable[[list[TriggerReport], set[int]], None],
        seal: Callable[[str], str] = str,
    ) -> None:
        super().__init__(_BATCH)
        self._db = database
        self._job_id = job_id
        self._stats = stats
        self._on_stored = on_stored
        self._seal = seal
        self._labels: dict[int, triggers.Label] = {}  # of those of this batch that have failed

    def _next_batch(self) -> list[TriggerReport]:
        size = 0
        batch = super()._next_batch()
        for count, report in enumerate(batch):
            size += report.size
            if size > _BATCH_BYTES and count:
                return batch[:count]
        return batch

    async def _prepare(self, batch: list[TriggerReport]) -> None:
        """Whose the failed ones are, for the log. Once that is stored, their rows may be gone."""
        failed = [report.trigger_id for report in batch if report.kind == "failed"]
        labels = partial(triggers.labels, trigger_ids=failed)
        self._labels = await self._db.reading(labels) if failed else {}

    async def _write(self, batch: list[TriggerReport]) -> set[int]:
        step = partial(
            trigger_events.store, job_id=self._job_id, reports=batch, now=now_us(), seal=self._seal
        )
        return set(await self._db.until_done(step))

    async def _refused(self, item: TriggerReport, why: str) -> set[int]:
        """A report that cannot be stored fails its own trigger only."""
        item.row = None
        item.error = f"the event of this trigger cannot be stored: {why}"
        item.kind, item.payload = "failed", msgspec.Raw(b"null")
        step = partial(trigger_events.store, job_id=self._job_id, reports=[item], now=now_us())
        return set(await self._db.until_done(step))

    async def _settle(self, batch: list[TriggerReport], stored: set[int]) -> None:
        for report in batch:
            self._tell(report, report.trigger_id in stored)
        self._on_stored(batch, stored)

    def _tell(self, report: TriggerReport, stored: bool) -> None:
        """Count and log what became of a report."""
        if not stored:
            log.info("the event of trigger %d came too late", report.trigger_id)
        elif report.kind == "row":
            log.debug("trigger %d waits as a row", report.trigger_id)
        elif report.kind != "failed":
            self._stats.incr("triggers.succeeded")
        else:
            self._stats.incr("triggers.failed")
            line = (report.error or "").rstrip().rpartition("\n")[2]
            label = self._labels.get(report.trigger_id)
            whose = f" ({label.text})" if label else ""
            log.warning("trigger %d%s failed: %s", report.trigger_id, whose, line)
