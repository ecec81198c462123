"""``roost worker``: an anyio shell around the hub (processes) and the ledger (database).

bell, free slot or poll ──▶ claim ──▶ hub.start
hub readable or due ──▶ hub.turn ──▶ outcomes ──▶ store ──▶ bell of the scheduler
                                └──▶ requests ──▶ answer ──▶ hub.reply
lease ── renewed every few seconds; what others have ended is killed here

No coroutine and no thread belongs to a task. While the database is away, tasks go on, their
outcomes are kept, and everything is stored when it is back.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from functools import partial

import anyio
from sqlalchemy import Engine

from roost.models.engine import is_passing, open_engine
from roost.models.queries import jobs
from roost.models.schema import require_schema
from roost.support import osproc
from roost.support.clock import SECOND
from roost.support.config import Config, without_secrets
from roost.support.doorbell import BellSocket, Doorbell, drain
from roost.support.notify import Notifier
from roost.support.processes import Process, me
from roost.support.service import Patience, Wake, feed_watchdog, set_up_logging
from roost.support.stats import Stats, open_stats
from roost.support.wire import Reply
from roost.worker.hub import Asked, Ended, Hub, HubSettings
from roost.worker.ledger import Beat, Ledger
from roost.worker.leftovers import kill_leftovers

__all__ = ["run_worker"]

log = logging.getLogger("roost.worker")

_CLAIM_BATCH = 64
# While tasks run, transactions are at least this far apart, so that several tasks share one. The
# first after a pause is never delayed.
_CLAIM_PACE_S = 0.02
_STORE_PACE_S = 0.015
_GOODBYE_S = 10.0


def run_worker(config: Config, queues: Sequence[str], slots: int) -> int:
    """Run a worker until SIGTERM or SIGINT: it drains, then stops what is left.

    Args:
        config: the whole configuration.
        queues: whose tasks to take.
        slots: most tasks at the same time.

    Returns:
        The exit code: 0 after a stop that was asked for.

    Raises:
        SchemaError: the database is missing, or older or newer than this Roost.
    """
    set_up_logging(config.logging.level, "worker")
    osproc.hide_memory()
    engine = open_engine(config.database.url, sqlite_synchronous=config.database.sqlite_synchronous)
    statsd = config.statsd
    stats = open_stats(statsd.host if statsd.enabled else "", statsd.port, statsd.prefix)
    try:
        require_schema(engine)
        with Doorbell(config.run_dir) as bell, bell.listen("worker") as heard:
            daemon = WorkerDaemon(config, engine, bell, stats, queues, slots)
            anyio.run(daemon.serve, heard)
    finally:
        stats.zero_all()
        stats.close()
        engine.dispose()
    return 0


class WorkerDaemon:
    """One worker process: its coroutines share the hub, the ledger and the wake-ups."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        bell: Doorbell,
        stats: Stats,
        queues: Sequence[str],
        slots: int,
    ) -> None:
        self._config = config
        self._bell = bell
        self._stats = stats
        self._queues = queues
        self._slots = slots
        process: Process = me()
        self._ledger = Ledger(engine, process, queues, str(config.run_dir))
        self._hub = Hub(
            HubSettings(
                dags_folder=str(config.dags_folder),
                log_folder=str(config.log_folder),
                template_idle_us=int(config.worker.template_idle * SECOND),
                load_timeout_us=int(config.scheduler.parse_timeout * SECOND),
            ),
            process.token,
            without_secrets(os.environ),
        )
        self._patience = Patience(is_passing)
        self._notifier = Notifier()
        self._claim_wake = Wake()
        self._store_wake = Wake()
        self._answer_wake = Wake()
        self._nap: anyio.CancelScope | None = None
        self._outbox: list[Ended] = []
        self._storing = 0
        self._asked: list[Asked] = []
        self._queue_may_hold_more = True
        self._stray: set[int] = set()
        self._stop = anyio.Event()
        self._stop_now = anyio.Event()

    async def serve(self, heard: BellSocket) -> None:
        """Run until asked to stop."""
        for token in await self._patience.until_done(self._ledger.dead_neighbours):
            if killed := kill_leftovers(token):
                log.warning("killed %d processes that a dead worker left", len(killed))
        job_id = await self._patience.until_done(self._ledger.join)
        log.info(
            "worker %d ready: %d slots, queues %s", job_id, self._slots, ",".join(self._queues)
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._obey_signals, name="signals")
            group.start_soon(self._hear, heard, name="bell")
            group.start_soon(self._pump, name="pump")
            group.start_soon(self._claim, name="claim")
            group.start_soon(self._store, name="store")
            group.start_soon(self._answer, name="answer")
            group.start_soon(self._keep_lease, name="lease")
            group.start_soon(feed_watchdog, self._notifier, name="watchdog")
            self._notifier.ready(f"job {job_id}: {self._slots} slots")
            await self._stop.wait()
            await self._drain()
            group.cancel_scope.cancel()
        with anyio.move_on_after(5, shield=True):
            await self._patience.once(self._ledger.leave)
        self._bell.ring("scheduler")

    # -- processes -----------------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            due = self._hub.next_due_us
            timeout = None if due is None else max(0.0, (due - osproc.boot_us()) / SECOND)
            with anyio.move_on_after(timeout) as self._nap:
                await anyio.wait_readable(self._hub)
            before = self._hub.running
            self._hub.turn()
            self._collect()
            if self._hub.running < before and self._queue_may_hold_more:
                self._claim_wake.set()

    def _collect(self) -> None:
        hub = self._hub
        if hub.ended:
            self._outbox += hub.ended
            hub.ended.clear()
            self._store_wake.set()
        if hub.asked:
            self._asked += hub.asked
            hub.asked.clear()
            self._answer_wake.set()

    def _rouse_pump(self) -> None:
        """The hub may have a new first due moment, or something to hand on."""
        self._collect()
        if self._nap is not None:
            self._nap.cancel()

    # -- the queue -----------------------------------------------------------------------------

    async def _hear(self, heard: BellSocket) -> None:
        while True:
            await anyio.wait_readable(heard)
            drain(heard)
            self._queue_may_hold_more = True
            self._claim_wake.set()

    async def _claim(self) -> None:
        last = 0.0
        while not self._stop.is_set():
            await self._claim_wake.wait(self._config.scheduler.poll_interval)
            if self._hub.running:
                await anyio.sleep(max(0.0, last + _CLAIM_PACE_S - time.monotonic()))
            limit = min(_CLAIM_BATCH, self._slots - self._hub.running)
            if limit <= 0 or self._stop.is_set():
                continue
            last = time.monotonic()
            self._queue_may_hold_more = False
            starts = await self._patience.until_done(partial(self._ledger.claim, limit))
            for start in starts:
                self._hub.start(start.spec, start.source)
                self._stats.incr("ti.start", dag=start.spec.dag_id, task=start.spec.task_id)
            if len(starts) == limit:
                self._queue_may_hold_more = True
                self._claim_wake.set()
            if starts:
                self._rouse_pump()

    # -- outcomes and requests -----------------------------------------------------------------

    async def _store(self) -> None:
        last = 0.0
        while True:
            await self._store_wake.wait()
            if self._hub.dispatch_ids:  # more outcomes are to come
                await anyio.sleep(max(0.0, last + _STORE_PACE_S - time.monotonic()))
            last = time.monotonic()
            batch, self._outbox = self._outbox, []
            self._storing = len(batch)
            await self._store_batch(batch)
            self._storing = 0

    async def _store_batch(self, batch: list[Ended]) -> None:
        if not batch:
            return
        try:
            await self._patience.until_done(partial(self._ledger.store, batch))
        except Exception as error:
            if len(batch) > 1:  # one of them is the culprit; the others must not suffer
                for one in batch:
                    await self._store_batch([one])
                return
            log.exception("the outcome of dispatch %d cannot be stored", batch[0].spec.dispatch_id)
            await self._patience.until_done(
                partial(self._ledger.store, [_unstorable(batch[0], error)])
            )
        self._bell.ring("scheduler")

    async def _answer(self) -> None:
        while True:
            await self._answer_wake.wait()
            while self._asked:
                batch, self._asked = self._asked, []
                await self._answer_batch(batch)

    async def _answer_batch(self, batch: list[Asked]) -> None:
        try:
            replies = await self._patience.until_done(partial(self._ledger.answer, batch))
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._answer_batch([one])
                return
            log.warning("a request of dispatch %d failed: %s", batch[0].spec.dispatch_id, error)
            replies = [Reply(error=str(error).partition("\n")[0])]
        for asked, reply in zip(batch, replies, strict=True):
            self._hub.reply(asked.spec.dispatch_id, reply)

    # -- the lease -----------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            await anyio.sleep(jobs.LEASE_RENEW_S)
            before = set(self._hub.dispatch_ids)
            beat = await self._patience.until_done(self._ledger.beat)
            if beat.alive:
                self._stats.incr("worker_heartbeat")
                await self._compare(before, beat)
            else:
                await self._rejoin()
            self._notifier.status(f"{self._hub.running} of {self._slots} slots in use")

    async def _compare(self, before: set[int], beat: Beat) -> None:
        """End what others have taken from us, and give up what we hold without knowing it."""
        now = set(self._hub.dispatch_ids)
        for dispatch_id in (before & now) - beat.held:
            log.warning("dispatch %d was ended by others: its task is killed", dispatch_id)
            self._hub.terminate(dispatch_id, "revoked")
        known = before | now | {one.spec.dispatch_id for one in self._outbox}
        # The answer to a claim's commit may have been lost. What is unknown twice in a row was
        # claimed by us and is run by nobody.
        unknown = beat.held - known if not self._storing else set()
        lost, self._stray = unknown & self._stray, unknown
        if lost:
            error = "the worker did not learn of its claim"
            await self._patience.until_done(partial(self._ledger.give_up, sorted(lost), error))
            self._bell.ring("scheduler")
        self._rouse_pump()

    async def _rejoin(self) -> None:
        """Others declared this worker dead: what it runs is dispatched anew, so it must end."""
        log.warning(
            "job %d was declared dead by another daemon: killing its %d tasks, joining anew",
            self._ledger.job_id,
            self._hub.running,
        )
        for dispatch_id in self._hub.dispatch_ids:
            self._hub.kill(dispatch_id, "revoked")
        self._outbox.clear()
        self._rouse_pump()
        await self._patience.until_done(self._ledger.join)
        self._claim_wake.set()

    # -- stopping ------------------------------------------------------------------------------

    async def _obey_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if self._stop.is_set():
                    log.warning("%s again: killing %d tasks", number.name, self._hub.running)
                    self._stop_now.set()
                else:
                    log.info("%s: draining %d tasks", number.name, self._hub.running)
                    self._stop.set()
                    self._claim_wake.set()

    async def _drain(self) -> None:
        """Wait for the tasks, then stop them, then store what they said."""
        timeout = self._config.worker.drain_timeout
        self._notifier.stopping(f"draining {self._hub.running} tasks")
        self._notifier.extend_timeout(timeout + 2 * _GOODBYE_S)
        with anyio.move_on_after(timeout):
            await self._until_empty()
        if not self._stop_now.is_set():
            for dispatch_id in self._hub.dispatch_ids:
                self._hub.terminate(dispatch_id, "preempted")
            self._rouse_pump()
            with anyio.move_on_after(_GOODBYE_S):
                await self._until_empty()
        self._hub.close()
        self._collect()
        with anyio.move_on_after(_GOODBYE_S):
            while self._outbox or self._storing:
                self._store_wake.set()
                await anyio.sleep(0.01)

    async def _until_empty(self) -> None:
        """Wait until nothing runs, or somebody asks to stop now."""
        while self._hub.running and not self._stop_now.is_set():
            await anyio.sleep(0.02)


def _unstorable(ended: Ended, error: Exception) -> Ended:
    """What is stored instead of an outcome that the database refuses."""
    outcome = ended.outcome
    text = f"the result of the task cannot be stored: {str(error).partition(chr(10))[0]}"
    return Ended(
        ended.spec,
        type(outcome)(
            "failed", outcome.started_at, outcome.ended_at, ascii(text), run_us=outcome.run_us
        ),
    )
