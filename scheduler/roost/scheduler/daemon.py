"""``roost scheduler``: an anyio shell around synchronous turns and chores.

bell, due moment or poll ──▶ turns ──▶ executor, bells of worker and triggerer
lease ── renewed every few seconds on a connection of its own
folder ── looks for changed DAG files; user code runs in short-lived children only
rescue ── notices dead daemons: at once on this host (pidfd), by lease elsewhere
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup
from sqlalchemy import Engine

from roost.exceptions import RoostException
from roost.executors.base import BaseExecutor, load_executor
from roost.models.engine import (
    Tx,
    driver_arguments,
    is_passing,
    open_engine,
    read,
    single,
    transact,
)
from roost.models.queries import jobs
from roost.models.queries.jobs import Job
from roost.models.schema import require_schema
from roost.models.states import State
from roost.scheduler.chores.asset_events import INTERVAL_S as _ASSET_EVENTS_INTERVAL_S
from roost.scheduler.chores.asset_events import prune_asset_events
from roost.scheduler.chores.external_events import INTERVAL_S as _EVENTS_INTERVAL_S
from roost.scheduler.chores.external_events import prune_events
from roost.scheduler.chores.gauges import report_gauges
from roost.scheduler.chores.rescue import Rescued, Survey, rescue, survey
from roost.scheduler.chores.sla import SlaWatch
from roost.scheduler.chores.watchers import INTERVAL_S as _WATCHERS_INTERVAL_S
from roost.scheduler.chores.watchers import sync_watchers
from roost.scheduler.loop import LeaseLost, Report, Scheduler
from roost.scheduler.parsing.pool import ParserPool
from roost.scheduler.parsing.watcher import Watcher
from roost.support import osproc
from roost.support.clock import SECOND, now_us
from roost.support.config import Config, user_environ
from roost.support.doorbell import BellSocket
from roost.support.far_bell import FarDoorbell
from roost.support.notify import Notifier
from roost.support.processes import Process, is_alive, me
from roost.support.service import (
    Calm,
    Patience,
    Stop,
    Wake,
    feed_watchdog,
    hear,
    set_up_logging,
)
from roost.support.stats import Stats, open_stats

__all__ = ["run_scheduler"]

log = logging.getLogger("roost.scheduler")

_SLA_INTERVAL_S = 30.0
_GAUGE_INTERVAL_S = 5.0
_GRACE_S = jobs.LEASE_TTL_S + jobs.LEASE_RENEW_S


def run_scheduler(config: Config) -> int:
    """Run a scheduler until SIGTERM or SIGINT; tasks and triggers go on without it.

    Returns:
        The exit code: 0 after a stop that was asked for.

    Raises:
        SchemaError: the database is missing, or older or newer than this Roost.
        RoostException: another scheduler runs on the same SQLite database.
    """
    set_up_logging(config.logging.level, "scheduler")
    osproc.hide_memory()
    engine = open_engine(config.database.url, sqlite_synchronous=config.database.sqlite_synchronous)
    statsd = config.statsd
    stats = open_stats(statsd.host if statsd.enabled else "", statsd.port, statsd.prefix)
    try:
        require_schema(engine)
        bells = FarDoorbell(config.run_dir, "scheduler", driver_arguments(engine))
        with bells as bell, bell.listen("scheduler") as heard:
            anyio.run(SchedulerDaemon(config, engine, bell, stats).serve, heard)
    finally:
        stats.zero_all()
        stats.close()
        engine.dispose()
    return 0


class SchedulerDaemon:
    """One scheduler process: its coroutines share the wake-up and the job."""

    def __init__(self, config: Config, engine: Engine, bell: FarDoorbell, stats: Stats) -> None:
        self._config = config
        self._engine = engine
        self._bell = bell
        self._stats = stats
        self._me: Process = me()
        self._executor: BaseExecutor = load_executor(config, engine, bell)
        self._scheduler = Scheduler(
            engine,
            parallelism=self._executor.parallelism,
            max_losses=config.scheduler.max_losses,
            max_retry_delay_us=round(config.core.max_task_retry_delay * SECOND),
            ageing_us=round(config.scheduler.ageing * SECOND),
            max_map_length=config.core.max_map_length,
        )
        self._patience = Patience(is_passing)
        self._calm = Calm(self._patience, grace_s=_GRACE_S, slow_s=jobs.LEASE_RENEW_S)
        self._notifier = Notifier()
        self._wake = Wake()
        self._rescue_wake = Wake()
        self._stop = Stop("stopping; tasks and triggers go on")
        self._watched: set[int] = set()
        self._starving: dict[str, int] = {}
        self._executable = 0

    async def serve(self, heard: BellSocket) -> None:
        """Run until asked to stop."""
        job_id = await self._patience.until_done(partial(transact, self._engine, self._register))
        self._scheduler.join(job_id)
        self._executor.start()
        log.info(
            "scheduler job %d ready: %s executor with %d slots, DAGs in %s",
            job_id,
            self._config.core.executor,
            self._executor.parallelism,
            self._config.dags_folder,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop.obey_signals, name="signals")
            group.start_soon(hear, heard, self._wake, name="bell")
            group.start_soon(self._take_turns, name="turns")
            group.start_soon(self._keep_lease, name="lease")
            group.start_soon(self._watch_folder, name="folder")
            group.start_soon(self._rescue, group, name="rescue")
            group.start_soon(self._report_gauges, name="gauges")
            group.start_soon(self._check_slas, name="slas")
            prune = partial(prune_events, self._engine)
            group.start_soon(self._repeat, prune, _EVENTS_INTERVAL_S, name="events")
            keep_us = round(self._config.scheduler.asset_event_retention * SECOND)
            prune = partial(prune_asset_events, self._engine, keep_us)
            group.start_soon(self._repeat, prune, _ASSET_EVENTS_INTERVAL_S, name="asset events")
            group.start_soon(self._sync_watchers, name="watchers")
            group.start_soon(feed_watchdog, self._notifier, name="watchdog")
            self._notifier.ready(f"job {job_id}")
            await self._stop.asked.wait()
            self._notifier.stopping()
            group.cancel_scope.cancel()
        with anyio.move_on_after(5, shield=True):
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """End the job; where the database is away, others notice that this process is gone."""
        try:
            await self._patience.once(self._leave)
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("left without a goodbye: %s", str(error).partition("\n")[0])

    def _register(self, tx: Tx) -> int:
        if tx.dialect == "sqlite":
            for job in jobs.live(tx):
                if job.kind == "scheduler" and is_alive(job.pid, job.pid_start):
                    raise RoostException(
                        f"SQLite admits one scheduler, and process {job.pid} is it; "
                        "stop that one, or move the database to PostgreSQL"
                    )
        self._calm.join(jobs.server_up_s(tx))
        return jobs.register(tx, "scheduler", self._me, str(self._config.run_dir))

    def _leave(self) -> None:
        self._executor.end()  # has transactions of its own, and SQLite has one writer
        transact(self._engine, partial(jobs.end, job_id=self._scheduler.job_id))

    # -- turns ---------------------------------------------------------------------------------

    async def _take_turns(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                report = await self._patience.until_done(self._turn_and_submit)
            except LeaseLost:
                await self._rejoin()
                continue
            self._publish(report, time.perf_counter() - began)
            if not report.more:
                await self._sleep(report)

    def _turn_and_submit(self) -> Report:
        report = self._scheduler.take_turn()
        if report.handoffs or report.callbacks:
            self._executor.submit(report.handoffs + report.callbacks)
        return report

    async def _rejoin(self) -> None:
        log.warning(
            "job %d was declared dead by another daemon: dropping all memory, joining anew",
            self._scheduler.job_id,
        )
        job_id = await self._patience.until_done(partial(transact, self._engine, self._register))
        self._scheduler.join(job_id)

    async def _sleep(self, report: Report) -> None:
        """Sleep until a ring, a due moment, or a glance after a poll interval finds work."""
        poll = self._config.scheduler.poll_interval
        while True:
            due_s = float("inf")
            for due in (report.next_due, report.sweep_at):
                if due is not None:
                    due_s = min(due_s, max(0.0, (due - now_us()) / SECOND))
            if await self._wake.wait(min(poll, due_s)) or due_s <= poll:
                return
            if await self._patience.until_done(self._scheduler.has_work):
                return

    def _publish(self, report: Report, took_s: float) -> None:
        if report.deferred:
            self._bell.ring("triggerer")
        if report.wished:
            self._bell.ring("worker")
        if report.told_others:
            self._bell.ring("scheduler")
        self._starving = report.starving
        self._executable = len(report.handoffs)
        stats = self._stats
        stats.timing("scheduler.scheduler_loop_duration", took_s * 1000)
        if stats.reporting:  # every pass, and by the one scheduler that speaks for all
            stats.gauge("scheduler.tasks.executable", len(report.handoffs))
            stats.gauge("scheduler.tasks.starving", sum(report.starving.values()))
        for (dag, task, state), count in report.ended.items():
            stats.incr("ti.finish", count, dag=dag, task=task, state=state)
            if state == State.SUCCESS:
                stats.incr("ti_successes", count)
            elif state == State.FAILED:
                stats.incr("ti_failures", count)
        _publish_runs(stats, report)

    # -- chores --------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            renew = partial(jobs.renew, job_id=self._scheduler.job_id)
            with self._calm.step():
                lease = await self._patience.until_done(partial(single, self._engine, renew))
            if lease is not None:
                self._bell.meet(lease.elsewhere)
                self._stats.incr("scheduler_heartbeat")
            else:
                self._wake.set()  # the next turn finds the lease lost and joins anew
            await anyio.sleep(jobs.LEASE_RENEW_S)

    async def _watch_folder(self) -> None:
        config = self._config
        pool = ParserPool(
            str(config.dags_folder),
            user_environ(config),
            timeout_s=config.scheduler.parse_timeout,
            memory_bytes=config.scheduler.parse_memory_limit * 1024 * 1024,
        )
        watcher = Watcher(
            self._engine,
            str(config.dags_folder),
            pool,
            safe_mode=config.core.dag_discovery_safe_mode,
            paused=config.core.dags_are_paused_at_creation,
            ignore_syntax=config.core.dag_ignore_file_syntax,
        )
        # Of its own: a look that finds nothing asks no database, and does not say that it is back.
        patience = Patience(is_passing)
        try:
            while True:
                if await patience.until_done(watcher.look):
                    self._wake.set()
                    self._bell.ring("triggerer")  # watchers may have come or gone
                await anyio.sleep(config.scheduler.parse_interval)
        finally:
            watcher.close()

    async def _rescue(self, group: TaskGroup) -> None:
        while True:
            around = await self._patience.until_done(self._survey)
            if around.needed:
                step = partial(transact, self._engine, self._save)
                self._tell(await self._patience.until_done(step))
            for job in around.neighbours:
                if job.id not in self._watched and job.pid != os.getpid():
                    self._watched.add(job.id)
                    group.start_soon(self._watch, job, name=f"watch {job.kind} {job.id}")
            next_s = max(around.lapse_s, self._calm.left_s()) + jobs.LAPSE_MARGIN_S
            await self._rescue_wake.wait(min(next_s, self._config.scheduler.poll_interval))

    # Each attempt asks anew whether it may judge: the one before it may have met an outage.

    def _survey(self) -> Survey:
        with read(self._engine) as tx:
            return survey(tx, self._me, judge_leases=not self._calm.left_s())

    def _save(self, tx: Tx) -> Rescued:
        return rescue(tx, self._me, judge_leases=not self._calm.left_s())

    def _tell(self, rescued: Rescued) -> None:
        for job in rescued.ended:
            log.warning("%s %d (pid %d on %s) is gone", job.kind, job.id, job.pid, job.hostname)
            if job.kind == "triggerer":
                self._bell.ring("triggerer")
        if rescued.lost:
            log.warning("%d dispatches were lost with their worker", rescued.lost)
        if rescued.ended or rescued.lost:
            self._wake.set()

    async def _watch(self, job: Job) -> None:
        """Wait for the end of a daemon of this host, to rescue at once what it held."""
        try:
            fd = os.pidfd_open(job.pid)
        except ProcessLookupError:
            self._rescue_wake.set()
            return
        try:
            if is_alive(job.pid, job.pid_start):
                await anyio.wait_readable(fd)
        finally:
            os.close(fd)
            self._watched.discard(job.id)
        self._rescue_wake.set()

    async def _check_slas(self) -> None:
        watch = SlaWatch(self._engine)
        while self._config.core.check_slas:
            told = await self._patience.until_done(watch.look)
            if told:
                self._executor.submit(told)
            await anyio.sleep(_SLA_INTERVAL_S)

    async def _repeat(self, step: Callable[[], object], interval_s: float) -> None:
        while True:
            await self._patience.until_done(step)
            await anyio.sleep(interval_s)

    async def _sync_watchers(self) -> None:
        while True:
            if await self._patience.until_done(partial(sync_watchers, self._engine)):
                self._bell.ring("triggerer")
            await anyio.sleep(_WATCHERS_INTERVAL_S)

    async def _report_gauges(self) -> None:
        if not self._config.statsd.enabled:
            return
        while True:
            step = partial(
                report_gauges,
                stats=self._stats,
                job_id=self._scheduler.job_id,
                parallelism=self._executor.parallelism,
                executable=self._executable,
                starving=self._starving,
            )
            await self._patience.until_done(partial(transact, self._engine, step))
            await anyio.sleep(_GAUGE_INTERVAL_S)


def _publish_runs(stats: Stats, report: Report) -> None:
    if limits := report.deadlines:
        stats.incr("deadline_alerts.deadline_created", limits["created"])
        stats.incr("deadline_alerts.deadline_missed", limits["missed"])
        stats.incr("deadline_alerts.deadline_not_missed", limits["not_missed"])
    for run in report.finished:
        took_ms = run.took_us / 1000
        if run.succeeded:
            stats.timing("dagrun.duration.success", took_ms, dag=run.dag_id)
        else:
            stats.timing("dagrun.duration.failed", took_ms, dag=run.dag_id)
