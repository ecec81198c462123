"""The supervisor's part of ``on_kill()``: claim what users ended, have it done, settle it (D10)."""

from __future__ import annotations

import logging
from functools import partial

from roost.models.queries import kills
from roost.models.queries.kills import Kill, Lost
from roost.support.crypto import Keyring
from roost.support.labels import task_label
from roost.support.stats import Stats
from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.database import Database
from roost.triggerer.death import Death
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
        # By id of those whose runner has ended: the epoch, and how, if it was their doing.
        self._lost: dict[int, tuple[int, str | None]] = {}

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

    def died(self, ward: Ward, death: Death) -> None:
        """A runner has ended with some of them in hand. It was the doing of the one that was seen
        at it, or that had the runner for itself; the others are tried again elsewhere."""
        alone = death.suspicious and len(ward.killing) == 1 and not ward.running
        for trigger_id, epoch in ward.killing.items():
            if trigger_id in self._done:
                continue
            guilty = death.culprit == trigger_id or (death.culprit is None and alone)
            self._lost[trigger_id] = epoch, death.how if guilty else None

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
        if self._lost:
            seen -= len(self._lost)
            await self._let_go()
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
        claimed, given_up = await self._db.until_done(lambda tx: (step(tx), kills.expire(tx)))
        self._tell_given_up(given_up)
        readable = [kill for kill in claimed if kill.spec.error is None]
        for kill in claimed:
            if kill.spec.error is not None:
                self._give_up(kill.spec, kill.spec.error)
        for ward in self._wards:
            its = [kill for kill in readable if self._ward_of(kill) is ward]
            if its:
                await self._give(ward, its)
        return len(claimed) == _BATCH or bool(self._done)

    async def _let_go(self) -> None:
        """Have others try what ended with its runner, and tell who ended it."""
        lost, self._lost = self._lost, {}
        struck = {key: (epoch, int(how is not None)) for key, (epoch, how) in lost.items()}
        step = partial(kills.let_go, job_id=self._job_id, struck=struck)
        found, given_up = await self._db.until_done(lambda tx: (step(tx), kills.expire(tx)))
        for one in found:
            _, how = lost[one.id]
            if how is not None:
                log.error(
                    "trigger %d (%s): on_kill() ended its runner, time %d of %d: the runner %s",
                    one.id, _name_of(one), one.strikes, kills.MOST_STRIKES, how,
                )  # fmt: skip
        self._tell_given_up(given_up)

    def _tell_given_up(self, given_up: list[Lost]) -> None:
        for one in given_up:
            log.error(
                "trigger %d (%s): on_kill() is given up: %d runners have had it, %d of them it "
                "ended; see to it that what the task waited for is ended",
                one.id, _name_of(one), one.attempts, one.strikes,
            )  # fmt: skip
            self._stats.incr("triggers.kill_errors")

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
            if kill.attempts > 1:
                log.warning(
                    "trigger %d (%s): on_kill() is tried again, time %d",
                    kill.spec.trigger_id, name_of(kill.spec), kill.attempts,
                )  # fmt: skip
        await ward.kill([kill.spec for kill in claimed], self._timeout_us, self._sources)


def _name_of(lost: Lost) -> str:
    label = task_label(lost.dag_id, lost.task_id, lost.map_index, lost.run_id)
    return f"{lost.classpath} of {label}"
