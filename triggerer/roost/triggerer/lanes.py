"""The two lanes a triggerer works: timers it fires, poll triggers it has its runner run.

One loop: look, do what there is to do, sleep until the next timer is due, the bell rings or the
poll interval ends. The database says which poll triggers are ours; whatever the runner holds
besides is cancelled there, whatever it lacks is sent. So a trigger that was cleared or timed out,
a claim whose commit went unanswered and a runner that was replaced all mend the same way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

import anyio

from roost.models.engine import Tx
from roost.models.queries import jobs, kills, timers, trigger_specs, triggers
from roost.support.clock import SECOND, now_us
from roost.support.crypto import Keyring
from roost.support.processes import Process, is_alive
from roost.support.service import Wake
from roost.support.slices import Slices
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.court import Court
from roost.triggerer.database import Database
from roost.triggerer.death import Death
from roost.triggerer.kills import Kills
from roost.triggerer.messages import Blocked, Killed, Source
from roost.triggerer.peers import Peers
from roost.triggerer.ward import SourcesFn, Ward

__all__ = ["POLL_S", "Lanes"]

log = logging.getLogger(__name__)

POLL_S = 5.0
_FIRST_TIMERS = 8
# Of many timers the first few have the processors for themselves until their tasks run; what two of
# them start in that time is what a first slice holds.
_HEAD_START_S = 0.02
_TIMER_BATCH = 1_000
_CLAIM_BATCH = 1_000
_SEND_BATCH = 500
# However often bells ring, one look serves all rings of this long.
_BREATH_S = 0.01


class Lanes:
    """What one incarnation of a triggerer (one job row) works on.

    Args:
        wards: the runner of healthy triggers, and the one for those with strikes.
        me: this process.
        job_id: its lease; another incarnation has another Lanes.
        capacity: most poll triggers at once.
        queues: queues it takes triggers of; empty: every queue.
        strike_after: seconds of blocking that are a strike.
        wake: set by whoever has news for this loop.
        kills: makes the one who looks after what users ended (D10).
        on_fired: called after events were committed.
        on_heard: called when an event from outside is there for a trigger that waits for it.
        on_given: called when triggers were given back for others to claim.
        keys: decrypts what tasks deferred with; None: it is plain.
        on_failed: takes the failure of a trigger that ended or blocked its runner too often.
        on_import: takes what imports take long, each with how many more triggers wait for it.
    """

    def __init__(
        self,
        database: Database,
        wards: tuple[Ward, Ward],
        me: Process,
        job_id: int,
        *,
        capacity: int,
        queues: tuple[str, ...],
        strike_after: float,
        wake: Wake,
        kills: Callable[[SourcesFn], Kills],
        on_fired: Callable[[int], None],
        on_heard: Callable[[], None],
        on_given: Callable[[], None],
        on_failed: Callable[[TriggerReport], None],
        on_import: Callable[[Blocked, int], None],
        keys: Keyring | None = None,
    ) -> None:
        self._db = database
        self.wards = wards
        self._me = me
        self._job_id = job_id
        self._capacity = capacity
        self._queues = queues
        self._wake = wake
        self._on_fired = on_fired
        self._on_heard = on_heard
        self._on_given = on_given
        self._keys = keys
        self._peers = Peers(database, me, job_id, capacity, queues)
        self._kills = kills(self._sources)
        self.court = Court(
            database,
            wards,
            job_id,
            strike_after=strike_after,
            specs=self._specs,
            take_back=self._take_back,
            on_failed=on_failed,
            on_import=on_import,
            wake=wake,
        )
        self._timers = Slices(_FIRST_TIMERS, _TIMER_BATCH)
        self._reap_at = 0.0
        self._looked_at = time.monotonic()

    @property
    def running(self) -> dict[int, int]:
        """Epoch by id of what the present runners were given and have not ended durably."""
        return self.wards[0].running | self.wards[1].running

    @property
    def count(self) -> int:
        """How many that are."""
        return sum(len(ward.running) for ward in self.wards)

    def ended(self, report: TriggerReport) -> None:
        """What became of a trigger is durable, or nobody wants to know."""
        for ward in self.wards:
            if ward.running.get(report.trigger_id) == report.epoch:
                del ward.running[report.trigger_id]

    @property
    def free(self) -> int:
        """How many more poll triggers fit."""
        return self._capacity - self.count - self.court.held_back(time.monotonic())

    @property
    def look_age_s(self) -> float:
        """How long ago this loop last looked for work: whether it turns."""
        return time.monotonic() - self._looked_at

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._looked_at = time.monotonic()
            await self.court.judge()
            look = await self._db.reading(partial(triggers.look, job_id=self._job_id))
            if look.heard:
                self._on_heard()
            if look.ownerless or look.rivals_left is not None:
                await self._reap(look)
            due = look.next_due
            now = now_us()
            more = False
            if due is not None and due <= now:
                more = await self._fire(now)
                due = None  # there may be a next one: look again before a long sleep
                self._wake.set()
            more = await self._work(look) or more
            for ward in self.wards:
                await ward.rest()
            if not more:
                await anyio.sleep(_BREATH_S)
                await self._wake.wait(self._sleep_s(due, look.rivals_left))

    async def _work(self, look: triggers.Look) -> bool:
        """Have the runners do what is theirs; True when there may be more at once."""
        more = False
        # Before those that are gone are cancelled: who is killed is asked, then ends.
        if look.kills or self._kills.under_way:
            more = await self._kills.look(look.kills)
        if self._unsettled(look):
            await self._reconcile()
        if look.rivals_left is not None:
            more = await self._share(look) or more
        elif look.waiting and self.free > 0:
            more = await self._claim(self._queues, self.free) or more
        return more

    def _unsettled(self, look: triggers.Look) -> bool:
        """Whether the runners hold something else than they should."""
        held_sum = sum(sum(ward.running) for ward in self.wards)
        return self.court.moved or look.held != self.count or look.held_sum != held_sum

    def _sleep_s(self, next_due: int | None, rivals_left: int | None) -> float:
        now = time.monotonic()
        sleep = min(POLL_S, self.court.next_s(now), self._peers.next_s(now))
        if next_due is not None:
            sleep = min(sleep, (next_due - now_us()) / SECOND)
        if rivals_left is not None and rivals_left > 0:
            sleep = min(sleep, rivals_left / SECOND + jobs.LAPSE_MARGIN_S)
        return max(0.0, sleep)

    # -- timers --------------------------------------------------------------------------------

    async def _fire(self, now: int) -> bool:
        step = partial(timers.fire_timers, now=now, batch=self._timers.size)
        is_first = self._timers.at_first
        fired = await self._db.until_done(step)
        if fired:
            self._on_fired(fired)
        more = self._timers.took(fired)
        if more and is_first:
            await anyio.sleep(_HEAD_START_S)
        return more

    # -- poll triggers -------------------------------------------------------------------------

    async def _share(self, look: triggers.Look) -> bool:
        """Take our part of what waits, and give back what is more than that, among triggerers."""
        orders = await self._peers.orders(look.waiting, look.held)
        more = False
        for queues, count in orders.claim:
            if self.free > 0:
                more = await self._claim(tuple(queues), min(count, self.free)) or more
        for queues, count in orders.release:
            step = partial(triggers.give_back, job_id=self._job_id, count=count, queues=queues)
            if given := await self._db.until_done(step):
                log.info("gave %d triggers back: other triggerers have room", given)
                more = True  # the next look has them cancelled in the runner
                self._on_given()
        return more

    async def _claim(self, queues: tuple[str, ...], most: int) -> bool:
        """Own some waiting triggers and send them; True when there may be more to claim."""
        batch = min(most, _CLAIM_BATCH)
        step = partial(triggers.claim, job_id=self._job_id, batch=batch, queues=queues)
        claimed = await self._db.until_done(step)
        if claimed:
            await self._send(claimed)
        return len(claimed) == batch

    async def _reconcile(self) -> None:
        """Make the runners run what the database says is ours, and nothing else."""
        self.court.moved = False
        before = self.running
        held = await self._db.reading(partial(triggers.held, job_id=self._job_id))
        self.court.keep(held)
        now = time.monotonic()
        missing = {
            key: epoch
            for key, epoch in held.items()
            if key not in before and not self.court.holds(key, epoch, now)
        }
        for ward in self.wards:
            gone = [
                key
                for key, epoch in ward.running.items()
                if before.get(key) == epoch
                and (held.get(key) != epoch or not self.court.belongs(ward, key, epoch, now))
            ]
            if gone:
                doomed = await self._db.reading(partial(kills.pending, trigger_ids=gone))
                if doomed:  # since this look: the next one has them killed
                    self._wake.set()
                gone = [key for key in gone if key not in doomed]
            if gone:
                await self._take_back(ward, gone)
                missing |= {
                    key: held[key]
                    for key in gone
                    if key in held and not self.court.holds(key, held[key], now)
                }
        if missing:  # in the order of what is held, whatever they were missing for
            await self._send({key: epoch for key, epoch in held.items() if key in missing})

    async def _take_back(self, ward: Ward, gone: list[int]) -> None:
        for trigger_id in gone:
            ward.running.pop(trigger_id, None)  # what has ended since the look is gone already
        there = await self._db.reading(partial(triggers.present, trigger_ids=gone))
        await ward.take_back(gone, [one for one in gone if one not in there])

    async def _send(self, claimed: dict[int, int]) -> None:
        """Have their runners start these in this order (D16); what they do not get is sent at the
        next look."""
        ready = {ward: ward.ready() for ward in {self.court.ward_of(one) for one in claimed}}
        # Where there is no runner, its start wakes this loop, and the look finds what it lacks.
        ids = [one for one in claimed if ready[self.court.ward_of(one)]]
        for start in range(0, len(ids), _SEND_BATCH):
            chunk = ids[start : start + _SEND_BATCH]
            found = await self._db.reading(partial(self._specs, chunk))
            admitted = self.court.admit(found)
            for ward in self.wards:
                its = [spec for spec in admitted if self.court.ward_of(spec.trigger_id) is ward]
                if its:
                    await ward.give(its, self._sources)

    def _specs(self, trigger_ids: Iterable[int], tx: Tx) -> list[TriggerSpec]:
        return trigger_specs.specs(tx, self._job_id, trigger_ids, self._keys)

    async def _sources(self, wanted: Collection[str]) -> list[Source]:
        found = await self._db.reading(lambda tx: trigger_specs.sources(tx, wanted))
        return [Source(*row) for row in found]

    def killed(self, told: Killed) -> None:
        """A runner is through with a trigger that was to be killed."""
        self._kills.ended(told)
        self._wake.set()

    def runner_died(self, ward: Ward, death: Death) -> None:
        """The runner ended, and nobody had asked it to: somebody's doing, perhaps."""
        self.court.accuse(ward, death)
        self._kills.died(ward, death)

    def runner_changed(self, ward: Ward) -> None:
        """The runner started or ended: a new one holds nothing yet."""
        ward.changed()
        self._wake.set()

    # -- other triggerers ----------------------------------------------------------------------

    async def _reap(self, look: triggers.Look) -> None:
        """Free the triggers of triggerers that are gone; the others' pids once a poll interval."""
        lapsed = look.rivals_left is not None and look.rivals_left <= 0
        if not (lapsed or look.ownerless) and time.monotonic() < self._reap_at:
            return
        self._reap_at = time.monotonic() + POLL_S
        freed = await self._db.until_done(self._free_orphans)
        if freed:
            log.warning("freed %d triggers of triggerers that are gone", freed)
            self._wake.set()

    def _free_orphans(self, tx: Tx) -> int:
        # After an outage of the database nobody has renewed: give everybody time to do so first.
        patient = self._db.calm.left_s() > 0
        for job in jobs.live(tx):
            if job.kind != "triggerer" or job.id == self._job_id:
                continue
            here = job.host_id == self._me.host_id
            if (here and not is_alive(job.pid, job.pid_start)) or (job.lapsed and not patient):
                jobs.end(tx, job.id)
        return sum(triggers.release(tx, owner) for owner in triggers.owners_without_job(tx))
