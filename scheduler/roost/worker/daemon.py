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
import signal
import time
from collections.abc import Sequence, Set
from functools import partial

import anyio
from sqlalchemy import Engine

from roost.models.engine import driver_arguments, is_passing, open_engine
from roost.models.queries import jobs
from roost.models.schema import require_schema
from roost.support import osproc
from roost.support.clock import SECOND
from roost.support.config import Config, user_environ
from roost.support.crypto import keyring_of
from roost.support.doorbell import BellSocket, drain
from roost.support.event_tokens import url_base
from roost.support.far_bell import FarDoorbell
from roost.support.notify import Notifier
from roost.support.processes import Process, me
from roost.support.service import Patience, Wake, feed_watchdog, set_up_logging
from roost.support.stats import Stats, open_stats
from roost.worker.answers import Answers
from roost.worker.hub import Hub, HubSettings
from roost.worker.ledger import Ledger, Start
from roost.worker.leftovers import kill_leftovers
from roost.worker.mail import Inquiries, Outbox
from roost.worker.stay import MOST_TASKS

__all__ = ["run_worker"]

log = logging.getLogger("roost.worker")

_CLAIM_BATCH = 64
# A task's largest message is its outcome: what it returned, at most twice (multiple_outputs), and a
# traceback, or the arguments of a deferral.
_FRAME_REST = 8 * 1024 * 1024
# While much runs, claims are at least this far apart, so that several tasks share a transaction.
_CLAIM_PACE_S = 0.03
# A ring may mean that a user wants something else of what runs here; it mostly means other things.
_WISH_PACE_S = 0.1
# And what the tasks say is heard together.
_HEARING_PACE_S = 0.004
_EXHAUSTED_S = 2.0
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
        bells = FarDoorbell(config.run_dir, "worker", driver_arguments(engine))
        with bells as bell, bell.listen("worker") as heard:
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
        bell: FarDoorbell,
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
        keys = keyring_of(config)
        keys.check()
        self._ledger = Ledger(
            engine,
            process,
            queues,
            str(config.run_dir),
            Answers(
                keys,
                config.smtp,
                config.core.max_xcom_size,
                partial(url_base, config),
            ),
            callback_timeout_us=int(config.worker.callback_timeout * SECOND),
            keys=keys,
        )
        self._hub = Hub(
            HubSettings(
                dags_folder=str(config.dags_folder),
                log_folder=str(config.log_folder),
                max_templates=config.worker.max_templates,
                template_idle_us=int(config.worker.template_idle * SECOND),
                most_tasks=MOST_TASKS if config.worker.isolation == "reuse" else 1,
                max_frame=2 * config.core.max_xcom_size + _FRAME_REST,
                load_timeout_us=int(config.scheduler.parse_timeout * SECOND),
            ),
            process.token,
            user_environ(config),
        )
        self._patience = Patience(is_passing)
        self._notifier = Notifier()
        self._claim_wake = Wake()
        self._wish_wake = Wake()
        self._pump_scope: anyio.CancelScope | None = None
        self._pump_ended = anyio.Event()
        self._claims_ended = anyio.Event()
        self._nap: anyio.CancelScope | None = None
        self._outbox = Outbox(self._ledger, self._patience, bell, self._busy)
        self._inquiries = Inquiries(
            self._ledger,
            self._patience,
            self._hub.reply,
            started=partial(self._bell.ring, "scheduler"),
        )
        self._queue_may_hold_more = True
        self._stray: set[int] = set()
        self._stop = anyio.Event()
        self._stop_now = anyio.Event()
        self._emptied = anyio.Event()

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
            group.start_soon(self._obey_wishes, name="wishes")
            group.start_soon(self._outbox.run, name="outcomes")
            group.start_soon(self._inquiries.run, name="requests")
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
        hub = self._hub
        with anyio.CancelScope() as self._pump_scope:
            while True:
                due = hub.next_due_us
                timeout = None if due is None else max(0.0, (due - osproc.boot_us()) / SECOND)
                with anyio.move_on_after(timeout) as self._nap:
                    await anyio.wait_readable(hub)
                before = hub.running
                hub.turn()
                self._collect()
                if hub.running < before and self._queue_may_hold_more:
                    self._claim_wake.set()
                if self._busy():
                    await anyio.sleep(_HEARING_PACE_S)
        self._pump_ended.set()

    def _busy(self) -> bool:
        """Whether so much runs that it pays to wait a little and handle several tasks at once."""
        return len(self._hub.dispatch_ids) > self._slots // 4

    def _collect(self) -> None:
        hub = self._hub
        if hub.ended:
            for one in hub.ended:
                if one.outcome.callback_errors:
                    self._stats.incr("dag.callback_exceptions", one.outcome.callback_errors)
            self._outbox.add(hub.ended)
            hub.ended.clear()
        if hub.asked:
            self._inquiries.add(hub.asked)
            hub.asked.clear()
        if not hub.running:
            self._emptied.set()

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
            self._wish_wake.set()

    async def _obey_wishes(self) -> None:
        """Kill what users want to run again, or have marked; the scheduler does the rest."""
        while True:
            await self._wish_wake.wait(jobs.LEASE_RENEW_S)
            await anyio.sleep(_WISH_PACE_S)
            if not self._hub.running:
                continue
            wished = await self._patience.until_done(self._ledger.wished)
            for dispatch_id in wished & set(self._hub.dispatch_ids):
                log.info("dispatch %d ends on a user's wish", dispatch_id)
                self._hub.terminate(dispatch_id, "wished")
            if wished:
                self._rouse_pump()

    async def _claim(self) -> None:
        last = 0.0
        self._claim_wake.set()  # what waits already has rung its bell before we listened
        while not self._stop.is_set():
            rung = await self._claim_wake.wait(self._config.scheduler.poll_interval)
            if not rung and not await self._patience.until_done(self._ledger.sees_work):
                continue
            if self._busy():
                await anyio.sleep(max(0.0, last + _CLAIM_PACE_S - time.monotonic()))
            limit = min(_CLAIM_BATCH, self._slots - self._hub.running)
            if limit <= 0 or self._stop.is_set():
                continue
            last = time.monotonic()
            self._queue_may_hold_more = False
            starts = await self._patience.until_done(partial(self._ledger.claim, limit))
            if len(starts) == limit:
                self._queue_may_hold_more = True
                self._claim_wake.set()
            if not self._start(starts):
                await anyio.sleep(_EXHAUSTED_S)
        self._claims_ended.set()

    def _start(self, starts: Sequence[Start]) -> bool:
        """Start tasks; False when this host cannot start processes for now."""
        if self._pump_ended.is_set():
            return True  # the goodbye gives them back
        can = True
        for start in starts:
            can = self._hub.start(start.spec, start.source) and can
            if start.spec.callback is None:
                self._stats.incr("ti.start", dag=start.spec.dag_id, task=start.spec.task_id)
        if starts:
            self._rouse_pump()
        if not can:
            log.error("this host cannot start processes: no claims for %g s", _EXHAUSTED_S)
        return can

    # -- the lease -----------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            before = set(self._hub.dispatch_ids)
            step = partial(self._ledger.beat, busy=bool(before or self._outbox.dispatch_ids()))
            beat = await self._patience.until_done(step)
            if beat.alive:
                self._bell.meet(beat.elsewhere)
                self._stats.incr("worker_heartbeat")
                if beat.held is not None:
                    await self._compare(before, beat.held, beat.undead)
            else:
                await self._rejoin()
            self._notifier.status(f"{self._hub.running} of {self._slots} slots in use")
            await anyio.sleep(jobs.LEASE_RENEW_S)

    async def _compare(self, before: set[int], held: set[int], undead: Set[int]) -> None:
        """End what others have taken from us, and give up what we hold without knowing it."""
        now = set(self._hub.dispatch_ids)
        for dispatch_id in (before & now) - (held - undead):
            what = "its task was moved" if dispatch_id in held else "it was ended"
            log.warning("dispatch %d: %s by others; its process is killed", dispatch_id, what)
            self._hub.terminate(dispatch_id, "revoked")
        known = before | now | self._outbox.dispatch_ids()
        # The answer to a claim's commit may have been lost. What is unknown twice in a row was
        # claimed by us and is run by nobody.
        unknown = held - known
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
                    self._emptied.set()
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
            await self._claims_ended.wait()
            await self._until_empty()
        if not self._stop_now.is_set():
            for dispatch_id in self._hub.dispatch_ids:
                self._hub.terminate(dispatch_id, "preempted")
            self._rouse_pump()
            with anyio.move_on_after(_GOODBYE_S):
                await self._until_empty()
        if self._pump_scope is not None:
            self._pump_scope.cancel()
        await self._pump_ended.wait()
        self._hub.close()
        self._collect()
        with anyio.move_on_after(_GOODBYE_S):
            await self._outbox.wait_empty()

    async def _until_empty(self) -> None:
        """Wait until nothing runs, or somebody asks to stop now."""
        while self._hub.running and not self._stop_now.is_set():
            self._emptied = anyio.Event()
            await self._emptied.wait()
