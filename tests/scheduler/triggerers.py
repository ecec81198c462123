"""Triggerers as actors of a random history: they claim, report, die, and speak afterwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from roost.models.engine import Tx
from roost.models.queries import jobs, kills, timers, trigger_events, triggers
from roost.support.trigger_wire import TriggerReport
from roost.support.wire import DeferSpec
from tests.scheduler.hands import World

__all__ = ["Triggerers"]

_RAW = msgspec.Raw(b"{}")


class _Claim(NamedTuple):
    job_id: int
    trigger_id: int
    epoch: int


class Triggerers:
    """Two that live, what they believe to be theirs, and those that were declared dead.

    Args:
        world: theirs.

    Attributes:
        stored: triggers of which an event has been stored.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs = [world.register("triggerer") for _ in range(2)]
        self._dead: list[int] = []
        self._claims: list[_Claim] = []  # all there ever were
        self._heard: dict[int, _Claim] = {}  # the newest by trigger
        self.stored: set[int] = set()

    def claim(self, which: int, batch: int) -> None:
        """One takes waiting triggers."""
        job_id = self._jobs[which]
        found = self._world.transact(lambda tx: triggers.claim(tx, job_id, batch))
        for trigger_id, epoch in found.items():
            claim = _Claim(job_id, trigger_id, epoch)
            before = self._heard.get(trigger_id)
            assert before is None or before.epoch < epoch, (before, claim)
            self._claims.append(claim)
            self._heard[trigger_id] = claim

    def give_back(self, which: int, count: int) -> None:
        """One has too many."""
        job_id = self._jobs[which]
        self._world.transact(lambda tx: triggers.give_back(tx, job_id, count, ["default"]))

    def report(self, pick: int, kind: Any) -> None:
        """Somebody who was ever given a trigger, living or dead, tells what became of it."""
        if not self._claims:
            return
        self._report(self._claims[-1 - pick % len(self._claims)], kind)

    def move(self, which: int, *, back: bool) -> None:
        """What one has goes to the other, or comes back to it, while a report is on its way."""
        self.claim(which, 20)
        mine = [c for c in self._heard.values() if c.job_id == self._jobs[which]]
        self.give_back(which, 20)
        self.claim(which if back else 1 - which, 20)
        for claim in mine[-3:]:
            self._report(claim, "fired")

    def _report(self, claim: _Claim, kind: Any) -> None:
        report = TriggerReport(claim.trigger_id, claim.epoch, kind, error="so it was")
        if kind == "row":
            due = self._world.clock.now
            report.row = DeferSpec("timer", "T", "t:T", _RAW, "done", _RAW, due_at=due)
        job_id = claim.job_id
        taken = self._world.transact(
            lambda tx: trigger_events.store(tx, job_id, [report], self._world.clock.now)
        )
        if taken:
            assert self._heard[claim.trigger_id] == claim, "a stale claim was heard"
            assert job_id not in self._dead, "a dead triggerer was heard"
        if taken and kind != "row":
            self.note(claim.trigger_id)

    def note(self, trigger_id: int) -> None:
        """An event was stored: the only one of its trigger."""
        assert trigger_id not in self.stored, f"trigger {trigger_id} has had its event"
        self.stored.add(trigger_id)

    def fire_timers(self) -> None:
        """What is due fires."""
        self._world.transact(lambda tx: timers.fire_timers(tx, self._world.clock.now, 100))
        for row in self._world.fetch("SELECT trigger_id FROM trigger_event"):
            self.stored.add(row.trigger_id)

    def die(self, which: int) -> None:
        """One is declared dead, and a new one takes its place; it may still speak."""
        job_id = self._jobs[which]

        def step(tx: Tx) -> None:
            jobs.end(tx, job_id)
            for owner in triggers.owners_without_job(tx):
                triggers.release(tx, owner)

        self._world.transact(step)
        self._dead.append(job_id)
        self._jobs[which] = self._world.register("triggerer")

    def kill(self, which: int, *, finish: bool) -> None:
        """One takes what is to be killed, and may die before it is done."""
        job_id = self._jobs[which]
        taken = self._world.transact(lambda tx: kills.claim(tx, job_id, 10, ()))
        done = {one.spec.trigger_id: one.spec.epoch for one in taken}
        if finish:
            self._world.transact(lambda tx: kills.finish(tx, job_id, done))

    def broken(self) -> list[str]:
        """What is wrong with kills and events, one line each."""
        killed = {row.id for row in self._world.fetch("SELECT id FROM trigger_kill")}
        waiting = {row.id for row in self._world.fetch("SELECT id FROM trigger")}
        resumed = {
            row.trigger_id
            for row in self._world.fetch("SELECT trigger_id FROM event_log WHERE event = 'resume'")
        }
        found = [f"D10: trigger {one} is killed and waits" for one in killed & waiting]
        found += [
            f"D10: trigger {one} is killed, and had its event" for one in killed & self.stored
        ]
        found += [f"S3: trigger {one} resumed, without an event" for one in resumed - self.stored]
        return found
