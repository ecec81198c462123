"""Reports of triggers on their way to the database, which has them before anybody acts on them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio
import msgspec
from sqlalchemy.exc import DBAPIError

from roost.exceptions import RoostException
from roost.models.queries import trigger_events, triggers
from roost.support.clock import now_us
from roost.support.service import Wake
from roost.support.stats import Stats
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.database import Database

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

_BATCH = 1_000
_BATCH_BYTES = 4 << 20


class Outbox:
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
        self._db = database
        self._job_id = job_id
        self._stats = stats
        self._on_stored = on_stored
        self._seal = seal
        self._pending: list[TriggerReport] = []
        self._wake = Wake()
        self._flushing = anyio.Lock()  # the last flush of all comes while another may be at it

    def put(self, reports: list[TriggerReport]) -> None:
        """Take reports; they are stored soon."""
        self._pending += reports
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
                batch = self._next_batch()
                labels = await self._labels(batch)
                stored = await self._store(batch)
                del self._pending[: len(batch)]
                for report in batch:
                    self._tell(report, report.trigger_id in stored, labels)
                self._on_stored(batch, stored)

    async def _labels(self, batch: list[TriggerReport]) -> dict[int, str]:
        """Whose the failed ones are, for the log. Once that is stored, their rows may be gone."""
        failed = [report.trigger_id for report in batch if report.kind == "failed"]
        if not failed:
            return {}
        return await self._db.reading(partial(triggers.labels, trigger_ids=failed))

    def _tell(self, report: TriggerReport, stored: bool, labels: dict[int, str]) -> None:
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
            label = labels.get(report.trigger_id)
            whose = f" ({label})" if label else ""
            log.warning("trigger %d%s failed: %s", report.trigger_id, whose, line)

    async def _store(self, batch: list[TriggerReport]) -> set[int]:
        """Store a batch; a report that cannot be stored fails its own trigger only."""
        step = partial(
            trigger_events.store, job_id=self._job_id, reports=batch, now=now_us(), seal=self._seal
        )
        try:
            return set(await self._db.until_done(step))
        except (DBAPIError, UnicodeDecodeError, RoostException) as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return await self._store(batch[:middle]) | await self._store(batch[middle:])
            (report,) = batch
            why = str(getattr(error, "orig", error)).partition("\n")[0]
        report.row = None
        error_text = f"the event of this trigger cannot be stored: {why}"
        report.kind, report.payload, report.error = "failed", msgspec.Raw(b"null"), error_text
        step = partial(trigger_events.store, job_id=self._job_id, reports=[report], now=now_us())
        return set(await self._db.until_done(step))

    def _next_batch(self) -> list[TriggerReport]:
        size = 0
        for count, report in enumerate(self._pending[:_BATCH]):
            size += report.size
            if size > _BATCH_BYTES and count:
                return self._pending[:count]
        return self._pending[:_BATCH]
