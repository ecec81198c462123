"""Telling triggers that their event is in the database, for those that acknowledge what they took.

A trigger that took a message from a broker may give it up only when the event that carries it
cannot be lost any more (D14 asks the same of event triggers). Its report says that it waits for a
receipt; the runner keeps it until this one has come, or the word that its event was refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

from roost.support.service import Wake
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.keeper import Keeper
from roost.triggerer.line import RunnerGone
from roost.triggerer.messages import Stored

__all__ = ["Receipts"]


class Receipts:
    """The receipts that the runners of ``keepers`` wait for; each knows its own."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        self._keepers = keepers
        self._waiting: list[tuple[int, int, bool]] = []
        self._wake = Wake()

    def put(self, reports: Sequence[TriggerReport], stored: Collection[int]) -> None:
        """Reports are done with; ``stored`` are the ids of those that are in the database."""
        for report in reports:
            if report.waits:
                there = report.kind != "failed" and report.trigger_id in stored
                self._waiting.append((report.trigger_id, report.epoch, there))
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Send them until cancelled; a runner that is gone has given nothing up."""
        while True:
            await self._wake.wait()
            waiting, self._waiting = self._waiting, []
            for keeper in self._keepers if waiting else ():
                with contextlib.suppress(RunnerGone):
                    await keeper.send(Stored(waiting))
