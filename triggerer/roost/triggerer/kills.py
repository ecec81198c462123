"""The supervisor's part of ``on_kill()``: claim what users ended, have it done, settle it (D10)."""

from __future__ import annotations

import logging
from functools import partial

from roost.models.queries import kills
from roost.models.queries.kills import Kill
from roost.support.crypto import Keyring
from roost.support.stats import Stats
from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.database import Database
from roost.triggerer.messages import Killed
from roost.triggerer.strikes import name_of
from roost.triggerer.ward import SourcesFn, Ward

__all__ = ["Kills"]

log = logging.getLogger(__name__)

_BATCH = 100


class Kills:
    """What one incarnation of a triggerer kills.

    Args:
        wards: its runners: the one of healthy triggers, and the one apart.
        job_id: its lease.
        queues: queues whose triggers it takes, where another one had them.
        timeout_s: bounds each ``on_kill()``.
        sources: reads DAG file versions.
        keys: decrypts what tasks deferred with; None: it is plain.
    """

    def __init__(
        self,
        database: Database,
        wards: tuple[Ward, Ward],
        job_id: int,
        *,
        queues: tuple[str, ...],
        timeout_s: float,
        stats: Stats,
        sources: SourcesFn,
        keys: Keyring | None = None,
    ) -> None:
        self._keys = keys
        self._db = database
        self._wards = wards
        self._job_id = job_id
        self._queues = queues
        self._timeout_us = round(timeout_s * 1e6)
        self._stats = stats
        self._sources = sources
        self._done: dict[int, int] = {}  # epoch by id, to be settled

    @property
    def under_way(self) -> int:
        """How many runners have in hand."""
        return sum(len(ward.killing) for ward in self._wards)

    def ended(self, told: Killed) -> None:
        """A runner is through with one."""
        for ward in self._wards:
            if ward.killing.get(told.trigger_id) == told.epoch:
                self._done[told.trigger_id] = told.epoch
        if told.called:
            self._stats.incr("triggers.killed")
        if told.failed:
            self._stats.incr("triggers.kill_errors")

    async def look(self, seen: int) -> bool:
        """Settle what is done and begin what is to be done; True when more may follow at once.

        Args:
            seen: how many kills the database has, for this triggerer or for anybody.
        """
        if self._done:
            done, self._done = self._done, {}
            await self._db.until_done(partial(kills.finish, job_id=self._job_id, done=done))
            for ward in self._wards:
                ward.killing = {k: e for k, e in ward.killing.items() if done.get(k) != e}
            seen -= len(done)
        if seen <= self.under_way:
            return False
        healthy, apart = self._wards
        if not healthy.ready():
            return False  # its start wakes the loop
        again = await self._db.reading(partial(kills.tried_before, job_id=self._job_id))
        step = partial(
            kills.claim,
            job_id=self._job_id,
            batch=_BATCH,
            busy=[key for ward in self._wards for key in ward.killing],
            tried=again and apart.ready(),
            queues=self._queues,
            keys=self._keys,
        )
        claimed = await self._db.until_done(step)
        readable = [kill for kill in claimed if kill.spec.error is None]
        for kill in claimed:
            if kill.spec.error is not None:
                self._give_up(kill.spec, kill.spec.error)
        for ward in self._wards:
            its = [kill for kill in readable if self._ward_of(kill) is ward]
            if its:
                await self._give(ward, its)
        return len(claimed) == _BATCH or bool(self._done)

    def _give_up(self, spec: TriggerSpec, why: str) -> None:
        """It cannot be made, here or elsewhere, so that there is nothing to call (D4)."""
        log.error(
            "trigger %d (%s): on_kill() is not called: %s", spec.trigger_id, name_of(spec), why
        )
        self._stats.incr("triggers.kill_errors")
        self._done[spec.trigger_id] = spec.epoch

    def _ward_of(self, kill: Kill) -> Ward:
        healthy, apart = self._wards
        for ward in self._wards:
            if kill.spec.trigger_id in ward.running:
                return ward  # it has the very object
        return apart if kill.attempts > 1 else healthy  # the runner that had it first has ended

    async def _give(self, ward: Ward, claimed: list[Kill]) -> None:
        for kill in claimed:
            if kill.attempts == kills.MOST_ATTEMPTS:
                log.warning(
                    "trigger %d (%s): on_kill() is tried for the last time",
                    kill.spec.trigger_id, name_of(kill.spec),
                )  # fmt: skip
        await ward.kill([kill.spec for kill in claimed], self._timeout_us, self._sources)
