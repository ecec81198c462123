"""The two lanes a triggerer works: timers it fires, poll triggers it has its runner run.

One loop: look, do what there is to do, sleep until the next timer is due, the bell rings or the
poll interval ends. The database says which poll triggers are ours; whatever the runner holds
besides is cancelled there, whatever it lacks is sent. So a trigger that was cleared or timed out,
a claim whose commit went unanswered and a runner that was replaced all mend the same way.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

import anyio

from roost.models.engine import Tx
from roost.models.queries import jobs, triggers
from roost.support.clock import SECOND, now_us
from roost.support.processes import Process, is_alive
from roost.support.service import Wake
from roost.support.wire import TriggerReport, TriggerSpec
from roost.triggerer.database import Database
from roost.triggerer.keeper import Keeper, RunnerGone
from roost.triggerer.messages import Cancel, Forget, Source, Start, Together
from roost.triggerer.peers import Peers
from roost.triggerer.strikes import STRIKES, Strikes, failure, name_of

__all__ = ["POLL_S", "Lanes"]

log = logging.getLogger(__name__)

POLL_S = 5.0
_TIMER_BATCH = 1_000
_CLAIM_BATCH = 1_000
_SEND_BATCH = 500
_JUDGED = 500
_RUNNER_IDLE_S = 60.0
# As many versions of DAG files may stay in a runner although no trigger of it needs them.
_SPARE_SOURCES = 16
_LAPSE_MARGIN_S = 0.1
# However often bells ring, one look serves all rings of this long.
_BREATH_S = 0.01


class Lanes:
    """What one incarnation of a triggerer (one job row) works on.

    Args:
        me: this process.
        job_id: its lease; another incarnation has another Lanes.
        capacity: most poll triggers at once.
        queues: queues it takes triggers of; empty: every queue.
        wake: set by whoever has news for this loop.
        on_fired: called after events were committed.
        on_heard: called when an event from outside is there for a trigger that waits for it.
        on_given: called when triggers were given back for others to claim.
        on_failed: takes the failure of a trigger that ended or blocked its runner too often.
    """

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        me: Process,
        job_id: int,
        *,
        capacity: int,
        queues: tuple[str, ...],
        wake: Wake,
        on_fired: Callable[[int], None],
        on_heard: Callable[[], None],
        on_given: Callable[[], None],
        on_failed: Callable[[TriggerReport], None],
    ) -> None:
        self._db = database
        self._keeper = keeper
        self._me = me
        self._job_id = job_id
        self._capacity = capacity
        self._queues = queues
        self._wake = wake
        self._on_fired = on_fired
        self._on_heard = on_heard
        self._on_given = on_given
        self._on_failed = on_failed
        self._peers = Peers(database, me, job_id, capacity, queues)
        self._strikes = Strikes()
        self._accused: list[tuple[int, int, str]] = []  # id, strikes, what became of the runner
        self._together: dict[int, list[int]] = {}  # who is polled as one, by whose work it counts
        self._generation = -1
        self._sent_sources: dict[str, None] = {}  # in the order in which they were last sent for
        self._code: dict[int, str] = {}  # code hash by id of what the runner was given
        self._idle_since: float | None = None
        self._reap_at = 0.0
        self._looked_at = time.monotonic()
        #: Epoch by id of what the present runner was given and has not ended durably.
        self.running: dict[int, int] = {}

    @property
    def free(self) -> int:
        """How many more poll triggers fit."""
        return self._capacity - len(self.running) - self._strikes.held_back(time.monotonic())

    @property
    def look_age_s(self) -> float:
        """How long ago this loop last looked for work: whether it turns."""
        return time.monotonic() - self._looked_at

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._looked_at = time.monotonic()
            while self._accused:
                accused, self._accused = self._accused[:_JUDGED], self._accused[_JUDGED:]
                await self._judge(accused)
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
            if look.held != len(self.running) or look.held_sum != sum(self.running):
                await self._reconcile()
            if look.rivals_left is not None:
                more = await self._share(look) or more
            elif look.waiting and self.free > 0:
                more = await self._claim(self._queues, self.free) or more
            await self._rest_runner()
            if not more:
                await anyio.sleep(_BREATH_S)
                await self._wake.wait(self._sleep_s(due, look.rivals_left))

    def _sleep_s(self, next_due: int | None, rivals_left: int | None) -> float:
        now = time.monotonic()
        sleep = min(POLL_S, self._strikes.next_s(now), self._peers.next_s(now))
        if next_due is not None:
            sleep = min(sleep, (next_due - now_us()) / SECOND)
        if rivals_left is not None and rivals_left > 0:
            sleep = min(sleep, rivals_left / SECOND + _LAPSE_MARGIN_S)
        return max(0.0, sleep)

    # -- timers --------------------------------------------------------------------------------

    async def _fire(self, now: int) -> bool:
        step = partial(triggers.fire_timers, now=now, batch=_TIMER_BATCH)
        fired = await self._db.until_done(step)
        if fired:
            self._on_fired(fired)
        return fired == _TIMER_BATCH

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
        """Make the runner run what the database says is ours, and nothing else."""
        before = dict(self.running)
        held = await self._db.reading(partial(triggers.held, job_id=self._job_id))
        gone = [
            trigger_id
            for trigger_id, epoch in before.items()
            if held.get(trigger_id) != epoch and self.running.get(trigger_id) == epoch
        ]
        for trigger_id in gone:
            del self.running[trigger_id]
        try:
            if gone:
                there = await self._db.reading(partial(triggers.present, trigger_ids=gone))
                over = [trigger_id for trigger_id in gone if trigger_id not in there]
                await self._keeper.send(Cancel(gone, over))
        except RunnerGone:
            pass
        self._strikes.keep(held)
        now = time.monotonic()
        missing = {
            key: epoch
            for key, epoch in held.items()
            if key not in before and not self._strikes.holds(key, epoch, now)
        }
        if missing:
            await self._send(missing)

    async def _send(self, claimed: dict[int, int]) -> None:
        """Have the runner run these; what it does not get is sent at the next look."""
        self._keeper.want()
        self._idle_since = None
        if self._keeper.pid is None:
            return  # its start wakes this loop, and the look finds what it lacks
        ids = sorted(claimed)
        for start in range(0, len(ids), _SEND_BATCH):
            chunk = ids[start : start + _SEND_BATCH]
            self._forget_old_runner()
            generation = self._generation
            specs = await self._db.reading(partial(self._specs, chunk))
            sources = await self._sources(specs)
            if generation != self._keeper.generation:
                return
            try:
                # Noted first: the report of a trigger that fires at once must find it here.
                self.running.update((spec.trigger_id, spec.epoch) for spec in specs)
                for spec in specs:  # one string for all: there are thousands
                    self._code[spec.trigger_id] = sys.intern(spec.code_hash)
                await self._keeper.send(Start(specs, sources))
                self._sent_sources.update((source.code_hash, None) for source in sources)
                await self._forget_sources()
            except RunnerGone:
                return

    def _specs(self, trigger_ids: Iterable[int], tx: Tx) -> list[TriggerSpec]:
        return triggers.specs(tx, self._job_id, trigger_ids)

    async def _sources(self, specs: list[TriggerSpec]) -> list[Source]:
        wanted = {spec.code_hash for spec in specs} - self._sent_sources.keys()
        if not wanted:
            return []
        found = await self._db.reading(lambda tx: triggers.sources(tx, wanted))
        return [Source(*row) for row in found]

    async def _forget_sources(self) -> None:
        """Have the runner let go of versions that nothing uses: files are edited for months."""
        many = len(self._sent_sources) > _SPARE_SOURCES
        if many or len(self._code) > 2 * len(self.running) + _SEND_BATCH:
            self._code = {key: code for key, code in self._code.items() if key in self.running}
        if not many:
            return
        unused = self._sent_sources.keys() - set(self._code.values())
        old = [code for code in self._sent_sources if code in unused][:-_SPARE_SOURCES]
        for code in old:
            del self._sent_sources[code]
        if old:
            await self._keeper.send(Forget(old))

    def _forget_old_runner(self) -> None:
        if self._generation != self._keeper.generation:
            self._generation = self._keeper.generation
            self._sent_sources.clear()
            self._code.clear()
            self._together.clear()
            self.running.clear()

    def runner_changed(self) -> None:
        """The runner started or ended: a new one holds nothing yet."""
        self._forget_old_runner()
        if self._keeper.pid is None:
            self.running.clear()
        self._wake.set()

    async def _rest_runner(self) -> None:
        """Let a runner go that has had nothing to do for a while."""
        if self.running or self._keeper.pid is None:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _RUNNER_IDLE_S:
            self._idle_since = None
            await self._keeper.dismiss(1.0)

    # -- triggers that end or block their runner ------------------------------------------------

    def together(self, told: Together) -> None:
        """These triggers are polled as one: what one does, all do."""
        self._together[told.trigger_id] = told.trigger_ids

    def accuse(self, trigger_id: int, how: str) -> None:
        """A runner ended in a step of this trigger: the next ones get it later, or never."""
        for one in self._together.get(trigger_id, [trigger_id]):
            epoch = self.running.get(one)
            if epoch is not None:  # else its row is gone, or its event stored: it is not sent again
                count = self._strikes.add(one, epoch, time.monotonic())
                self._accused.append((one, count, how))

    async def _judge(self, accused: list[tuple[int, int, str]]) -> None:
        """Tell whose triggers they were; fail those that have their last strike."""
        counts = {trigger_id: (count, how) for trigger_id, count, how in accused}
        for spec in await self._db.reading(partial(self._specs, list(counts))):
            count, how = counts[spec.trigger_id]
            log.error(
                "trigger %d (%s) ended or blocked its runner, time %d of %d: the runner %s",
                spec.trigger_id, name_of(spec), count, STRIKES, how,
            )  # fmt: skip
            if count >= STRIKES:
                self._on_failed(failure(spec, how))

    # -- other triggerers ----------------------------------------------------------------------

    async def _reap(self, look: triggers.Look) -> None:
        """Free the triggers of triggerers that are gone; the others' pids once a poll interval."""
        lapsed = look.rivals_left is not None and look.rivals_left <= 0
        if not (lapsed or look.ownerless) and time.monotonic() < self._reap_at:
            return
        self._reap_at = time.monotonic() + POLL_S
        # After an outage of the database nobody has renewed: give everybody time to do so first.
        patient = time.monotonic() - self._db.failed_at < jobs.LEASE_TTL_S
        freed = await self._db.until_done(partial(self._free_orphans, patient))
        if freed:
            log.warning("freed %d triggers of triggerers that are gone", freed)
            self._wake.set()

    def _free_orphans(self, patient: bool, tx: Tx) -> int:
        for job in jobs.live(tx):
            if job.kind != "triggerer" or job.id == self._job_id:
                continue
            here = job.host_id == self._me.host_id
            if (here and not is_alive(job.pid, job.pid_start)) or (job.lapsed and not patient):
                jobs.end(tx, job.id)
        return sum(triggers.release(tx, owner) for owner in triggers.owners_without_job(tx))
