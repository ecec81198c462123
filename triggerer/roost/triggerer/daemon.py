"""``roost triggerer``: the supervisor. It has the database; its runner child has the user's code.

    scheduler --rows, bell--> lanes --specs--> keeper ==socketpair==> runner (user's triggers)
    scheduler <--events, bell-- outbox <--reports-- keeper <========/

One *incarnation* is one job row with its lease. When the lease is lost (this process was stopped
for too long and another triggerer took over) everything the incarnation holds is dropped, its
runner is killed, and the daemon joins anew as another incarnation. A stale incarnation can write
nothing: its events carry epochs that are no longer in force.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio.abc import TaskGroup

from roost.exceptions import ConfigError
from roost.models.engine import Tx, driver_arguments, open_engine
from roost.models.queries import jobs, triggers
from roost.models.schema import require_schema
from roost.support import osproc
from roost.support.config import Config, user_environ
from roost.support.crypto import keyring_of
from roost.support.doorbell import BellSocket
from roost.support.far_bell import FarDoorbell
from roost.support.notify import Notifier
from roost.support.processes import Process, me
from roost.support.service import Stop, Wake, feed_watchdog, hear, set_up_logging
from roost.support.stats import Stats, open_stats
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.database import Database
from roost.triggerer.external import ExternalLane
from roost.triggerer.inquiries import Inquiries
from roost.triggerer.keeper import Keeper
from roost.triggerer.kills import Kills
from roost.triggerer.lanes import Lanes
from roost.triggerer.messages import Beat, Blocked, Setup
from roost.triggerer.outbox import Outbox
from roost.triggerer.receipts import Receipts
from roost.triggerer.sightings import Sightings
from roost.triggerer.tasklogs import TaskLogs
from roost.triggerer.ward import Ward

if TYPE_CHECKING:
    from roost.triggerer.callbacks import CallbackServer

__all__ = ["run_triggerer"]

log = logging.getLogger(__name__)

_GOODBYE_S = 7.0
_CLEANUP_S = 4.0
_LAST_RESORT_S = 9.5
_SERVICE_ONLY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


def run_triggerer(
    config: Config,
    capacity: int | None = None,
    queues: Sequence[str] | None = None,
    callback_port: int | None = None,
    callback_host: str | None = None,
) -> int:
    """Run a triggerer until SIGTERM or SIGINT; the second of them ends it at once.

    Args:
        config: the whole configuration.
        capacity: most poll triggers at once, instead of ``triggerer.capacity`` (D15).
        queues: only triggers of tasks of these queues, instead of ``triggerer.queues`` (D18).
        callback_port: where it takes events by HTTP, instead of ``triggerer.callback_port``.
        callback_host: and at which address, instead of ``triggerer.callback_host``.

    Returns:
        The exit code: 0 after a stop that was asked for.

    Raises:
        SchemaError: the database is missing, or older or newer than this Roost.
        ConfigError: ``database.url`` cannot be used, there is no encryption key, or callbacks
            cannot be taken so.
    """
    set_up_logging(config.logging.level, "triggerer")
    osproc.hide_memory()  # the runner executes user code and must not read our database URL
    engine = open_engine(config.database.url, sqlite_synchronous=config.database.sqlite_synchronous)
    statsd = config.statsd
    stats = open_stats(statsd.host if statsd.enabled else "", statsd.port, statsd.prefix)
    try:
        require_schema(engine)
        bells = FarDoorbell(config.run_dir, "triggerer", driver_arguments(engine))
        with bells as bell, bell.listen("triggerer") as heard:
            triggerer = Triggerer(
                config,
                Database(engine),
                bell,
                stats,
                capacity=capacity or config.triggerer.capacity,
                queues=tuple(config.triggerer.queues if queues is None else queues),
            )
            port = config.triggerer.callback_port if callback_port is None else callback_port
            if port:
                triggerer.take_callbacks(port, callback_host or config.triggerer.callback_host)
            anyio.run(triggerer.serve, heard)
    finally:
        stats.zero_all()
        stats.close()
        engine.dispose()
    return 0


class Triggerer:
    """The daemon's shell: signals, lease, bells; the work is in lanes, keeper and outbox."""

    def __init__(
        self,
        config: Config,
        database: Database,
        bell: FarDoorbell,
        stats: Stats,
        *,
        capacity: int,
        queues: tuple[str, ...],
    ) -> None:
        self._config = config
        self._db = database
        self._bell = bell
        self._stats = stats
        self._capacity = capacity
        self._queues = queues
        self._me: Process = me()
        self._notifier = Notifier()
        self._wake = Wake()
        self._stop = Stop("handing triggers over and stopping")
        self._keepers: list[Keeper] = []
        self._keys = keyring_of(config)
        self._keys.check()
        self._inquiries = Inquiries(database, self._keys)
        self._task_logs = TaskLogs(str(config.log_folder))
        self._callbacks: CallbackServer | None = None
        self._external = ExternalLane(database, self._keys, stats, self._on_fired)

    def take_callbacks(self, port: int, host: str) -> None:
        """Have events taken by HTTP, too, as soon as it serves.

        Raises:
            ConfigError: others could listen, or the library is missing.
        """
        try:
            from roost.triggerer.callbacks import CallbackServer, check_host  # h11 is an extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"callbacks need {error.name}: pip install 'roost[callback]'"
            ) from None
        check_host(self._config, host)
        database = self._config.database
        engine = open_engine(
            database.url, sqlite_synchronous=database.sqlite_synchronous, pool_size=1
        )
        self._callbacks = CallbackServer(
            self._config, engine, self._stats, self._on_callback, port=port, host=host
        )

    def _on_callback(self) -> None:
        self._wake.set()
        self._bell.ring("triggerer")

    async def serve(self, heard: BellSocket) -> None:
        """Live one incarnation after the other until asked to stop."""
        async with anyio.create_task_group() as group:
            if self._callbacks is not None:
                group.start_soon(self._callbacks.run, name="callbacks")
            group.start_soon(self._stop.obey_signals, name="signals")
            group.start_soon(self._bound_the_stop, name="last resort")
            group.start_soon(hear, heard, self._wake, name="bell")
            group.start_soon(feed_watchdog, self._notifier, name="watchdog")
            while not self._stop.asked.is_set():
                await self._live()
            group.cancel_scope.cancel()

    # -- one incarnation -----------------------------------------------------------------------

    async def _live(self) -> None:
        job_id: int | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_stopping, group)
            job_id = await self._db.until_done(self._register)
            group.cancel_scope.cancel()
        if job_id is None or self._stop.asked.is_set():
            return
        lanes, outbox, receipts, sightings = self._assemble(job_id)
        keepers = self._keepers = [ward.keeper for ward in lanes.wards]
        lost = False
        async with anyio.create_task_group() as staff:
            for keeper in keepers:
                staff.start_soon(keeper.run, name="keeper")
            staff.start_soon(outbox.run, name="outbox")
            staff.start_soon(receipts.run, name="receipts")
            staff.start_soon(sightings.run, name="sightings")
            staff.start_soon(self._inquiries.run, name="requests")
            staff.start_soon(self._task_logs.run, name="task logs")
            async with anyio.create_task_group() as workers:
                workers.start_soon(lanes.run, name="lanes")
                workers.start_soon(self._external.run, name="external lane")
                workers.start_soon(self._cancel_when_stopping, workers, name="stop")
                self._notifier.ready(f"triggerer job {job_id}")
                log.info("triggerer job %d ready: %s", job_id, self._offer())
                lost = await self._keep_lease(job_id, lanes)
                workers.cancel_scope.cancel()
            if not lost:
                with anyio.move_on_after(_GOODBYE_S):
                    await sightings.flush()
                    await self._goodbye(job_id, keepers, outbox)
            staff.cancel_scope.cancel()  # the keepers kill their runners

    def _assemble(self, job_id: int) -> tuple[Lanes, Outbox, Receipts, Sightings]:
        healthy, apart = (
            self._ward(apart, lambda: lanes, lambda: outbox, lambda: sightings)
            for apart in (False, True)
        )
        wards = healthy, apart
        lanes = Lanes(
            self._db,
            wards,
            self._me,
            job_id,
            capacity=self._capacity,
            queues=self._queues,
            strike_after=self._config.triggerer.strike_after,
            wake=self._wake,
            kills=lambda sources: Kills(
                self._db,
                wards,
                job_id,
                queues=self._queues,
                timeout_s=self._config.triggerer.on_kill_timeout,
                stats=self._stats,
                sources=sources,
                keys=self._keys,
            ),
            on_fired=self._on_fired,
            on_heard=self._external.look,
            on_given=self._on_given,
            on_failed=lambda report: outbox.put([report]),
            on_import=self._on_import,
            keys=self._keys,
        )
        receipts = Receipts([ward.keeper for ward in wards])
        stored = partial(self._on_stored, lanes, receipts)
        outbox = Outbox(self._db, job_id, self._stats, stored, self._keys.seal)
        sightings = Sightings(
            self._db,
            job_id,
            self._stats,
            [ward.keeper for ward in wards],
            self._on_seen,
        )
        return lanes, outbox, receipts, sightings

    def _ward(
        self,
        apart: bool,
        lanes: Callable[[], Lanes],
        outbox: Callable[[], Outbox],
        sightings: Callable[[], Sightings],
    ) -> Ward:
        """A runner to be; it is started when it is first wanted."""
        keeper = Keeper(
            Setup(
                str(self._config.dags_folder),
                self._config.logging.level,
                self._config.triggerer.stream_queue,
                round(self._config.triggerer.stream_ack_timeout * 1e6),
            ),
            self._runner_env(),
            memory_mb=self._config.triggerer.runner_memory_mb,
            on_reports=lambda message: outbox().put(message.reports),
            on_blocked=lambda note: self._on_blocked(lanes(), ward, note),
            on_held=lambda note: self._on_held(lanes(), ward, note),
            on_asked=lambda ask: self._inquiries.put(keeper, ask),
            on_beat=self._on_beat,
            on_together=lambda told: ward.together(told),
            on_words=self._task_logs.put,
            on_killed=lambda told: lanes().killed(told),
            on_seen=lambda seen: sightings().put(seen.sightings),
            on_death=lambda death: lanes().runner_died(ward, death),
            on_change=lambda: lanes().runner_changed(ward),
        )
        ward = Ward(keeper, apart=apart)
        return ward

    def _offer(self) -> str:
        queues = ", ".join(self._queues) or "every queue"
        return f"capacity {self._capacity}, triggers of {queues}"

    def _register(self, tx: Tx) -> int:
        self._db.meet(tx)
        # Its row says from the start what it can take, so that nobody takes its part meanwhile.
        detail = self._detail(running=0, look_age_s=0.0)
        return jobs.register(tx, "triggerer", self._me, str(self._config.run_dir), detail=detail)

    def _detail(self, running: int, look_age_s: float) -> str:
        told = {
            "running": running,
            "capacity": self._capacity,
            "queues": self._queues,
            "look_age_s": round(look_age_s, 1),
        }
        return msgspec.json.encode(told).decode()

    async def _keep_lease(self, job_id: int, lanes: Lanes) -> bool:
        """Renew until cancelled; True as soon as the lease turns out to be lost."""
        joining = True
        while True:
            detail = self._detail(lanes.count, lanes.look_age_s)
            lease = await self._db.single(partial(jobs.renew, job_id=job_id, detail=detail))
            if lease is None:
                log.warning("job %d lost its lease: dropping its triggers, joining anew", job_id)
                return True
            self._bell.meet(lease.elsewhere)
            if joining:  # it can take triggers now: others give it its part
                joining = False
                self._bell.ring("triggerer")
            self._stats.incr("triggerer_heartbeat")
            await anyio.sleep(jobs.LEASE_RENEW_S)

    async def _goodbye(self, job_id: int, keepers: list[Keeper], outbox: Outbox) -> None:
        """Hand over: events first, then the triggers, then let the runner clean up."""
        self._notifier.stopping("handing triggers over")
        await outbox.flush()
        await self._db.until_done(partial(self._leave, job_id))
        self._bell.ring("triggerer")
        for keeper in keepers:
            if keeper.pid is not None:
                await keeper.dismiss(_CLEANUP_S)
        while any(keeper.pid is not None for keeper in keepers):
            await self._wake.wait()

    def _leave(self, job_id: int, tx: Tx) -> None:
        triggers.release(tx, job_id)
        jobs.end(tx, job_id)

    def _runner_env(self) -> dict[str, str]:
        env = {
            name: value
            for name, value in user_environ(self._config).items()
            if name not in _SERVICE_ONLY and not name.startswith("ROOST__DATABASE__")
        }
        return env | {"ROOST_TRIGGERER_TOKEN": self._me.token}

    # -- news ----------------------------------------------------------------------------------

    def _on_fired(self, count: int) -> None:
        self._stats.incr("triggers.succeeded", count)
        self._bell.ring("scheduler")

    def _on_seen(self) -> None:
        self._bell.ring("scheduler")

    def _on_given(self) -> None:
        self._bell.ring("triggerer")

    def _on_stored(
        self, lanes: Lanes, receipts: Receipts, reports: list[TriggerReport], stored: set[int]
    ) -> None:
        receipts.put(reports, stored)
        for report in reports:
            lanes.ended(report)
        if stored:
            self._bell.ring("scheduler")
        turned = any(report.kind == "row" for report in reports)  # and may be due
        if turned or lanes.free <= len(reports):
            self._wake.set()  # there was no room before: others may be waiting

    def _on_beat(self, beat: Beat) -> None:
        if beat.polls:
            self._stats.incr("triggers.polls", beat.polls)
        if beat.poll_errors:
            self._stats.incr("triggers.poll_errors", beat.poll_errors)

    def _on_blocked(self, lanes: Lanes, ward: Ward, note: Blocked) -> None:
        lanes.court.blocked(ward, note)
        if note.importing:
            return  # told of when it is known who else needs that code
        who = note.who
        if note.over:
            log.warning("%s has blocked its runner for %.2f s", who, note.blocked_us / 1e6)
            return
        self._stats.incr("triggers.blocked_main_thread")
        self._count_block(note)
        log.warning(
            "%s blocks every trigger of this runner for %.2f s at %s: "
            "await there, or move the work to asyncio.to_thread",
            who, note.blocked_us / 1e6, note.where,
        )  # fmt: skip

    def _count_block(self, note: Blocked) -> None:
        dag, task = note.dag_id, note.task_id
        if not dag:
            known = note.trigger_id is not None and note.label  # of no task: a watcher's
            dag, task = ("_watchers", note.label) if known else ("_unknown", "_unknown")
        self._stats.incr("triggers.blocked", dag=dag, task=task)

    async def _on_held(self, lanes: Lanes, ward: Ward, note: Blocked) -> None:
        if not note.importing:
            await lanes.court.label(note)
        self._on_blocked(lanes, ward, note)

    def _on_import(self, note: Blocked, others: int) -> None:
        """The import of this trigger's code takes long, or is over; so many others wait for it."""
        who = note.who + (f" and {others} more" if others else "")
        seconds = note.blocked_us / 1e6
        if note.over:
            log.warning("the import of the code of %s took %.2f s", who, seconds)
            return
        self._count_block(note)
        if note.held:
            self._stats.incr("triggers.blocked_main_thread")
        log.warning(
            "the import of the code of %s %s for %.2f s at %s: "
            "import and do there only what takes no time",
            who,
            "blocks every trigger of this runner" if note.held else "has them wait",
            seconds, note.where,
        )  # fmt: skip

    # -- the process ---------------------------------------------------------------------------

    async def _cancel_when_stopping(self, group: TaskGroup) -> None:
        await self._stop.asked.wait()
        group.cancel_scope.cancel()

    async def _bound_the_stop(self) -> None:
        """Whatever hangs - the database, a trigger's cleanup - a stop ends in time."""
        await self._stop.asked.wait()
        last_resort = threading.Timer(_LAST_RESORT_S, self._exit_now)
        last_resort.daemon = True
        last_resort.start()

    def _exit_now(self) -> None:
        for keeper in self._keepers:
            keeper.kill()
        os._exit(1)
