"""The runner: one process, one asyncio loop, the user's triggers.

``python -m roost.triggerer.runner`` knows no database. Its supervisor sends it triggers over a
socketpair and takes its reports; when the supervisor goes away it ends. asyncio here, not anyio:
triggers are asyncio code (D8), and a waiting trigger costs half the memory that an anyio task
takes. Every trigger lives in one ``asyncio.TaskGroup`` and ends as a report
(:mod:`roost.triggerer.case`), so none can take the group down.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from roost.dag.runtime import serving_triggers
from roost.dag.trigger import BaseTrigger
from roost.support.frames import FrameBuffer, pack
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.asking import Asking
from roost.triggerer.case import (
    CURRENT,
    BoundFn,
    Case,
    RenderFn,
    ReportFn,
    ResolveFn,
    TakeFn,
    TellFn,
    explain,
    explain_briefly,
    live,
)
from roost.triggerer.commons import Commons
from roost.triggerer.exits import note_exits
from roost.triggerer.fanout import Streams
from roost.triggerer.journal import Handler, Journal, black_box
from roost.triggerer.killing import INSIST_S, Killing, kill_afresh
from roost.triggerer.messages import (
    STACK_SIGNAL,
    Answer,
    Beat,
    Cancel,
    Forget,
    Kept,
    Kill,
    Killed,
    Reports,
    Said,
    Seen,
    Setup,
    Sighting,
    Start,
    Stop,
    Stored,
    ToRunner,
    Words,
    decode_to_runner,
)
from roost.triggerer.pooled import Pool
from roost.triggerer.pulse import memory_mb
from roost.triggerer.registry import Registry
from roost.triggerer.steps import (
    Steps,
    attach,
    keep,
    note_callbacks,
    started_by,
    task_factory,
)
from roost.triggerer.streams import mask_streams, share_streams
from roost.triggerer.watchdog import Watchdog, Who
from roost.triggerer.watching import Watch, watch

__all__ = ["Runner", "main"]

log = logging.getLogger("roost.triggerer.runner")  # also where this module is __main__

BEAT_S = 1.0
_INSIST_S = 1.0
_INSIST_TIMES = 5
_AFTERWARDS_S = 1.0  # that run() has behind its event
_ORPHAN_GRACE_S = 5.0
_BATCH = 500
_BATCH_BYTES = 4 << 20
# Strings that triggers share, for each trigger: every run has an id of its own.
_LABELS = 5
_SPARE_LABELS = 1_000
# So many that have ended can still be named, should it turn out that they have blocked the loop.
_LATELY = 500
# What ends a process that has no handler.
_DEADLY = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGVTALRM,
    signal.SIGPROF, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip

Ways = tuple[ResolveFn, ReportFn, TakeFn, TellFn, RenderFn, BoundFn]
"""What :func:`live` needs besides the case."""


class Runner(asyncio.Protocol):
    """The triggers of this process and the line to their supervisor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._group: asyncio.TaskGroup | None = None
        self._registry: Registry | None = None
        self._ways: Ways | None = None  # for all triggers: each bound method weighs 64 bytes
        self._labels: dict[str, str] = {}  # one copy of each string that many triggers share
        self.cases: dict[int, Case] = {}
        self._lately: deque[Case] = deque(maxlen=_LATELY)
        self.asking = Asking(loop, lambda ask: self._write(pack(ask)))
        self._pool = Pool(
            self._report, self._forget, lambda told: self._write(pack(told)), self._unmet
        )
        self._streams = Streams(_stop_reading, lambda told: self._write(pack(told)))
        self.journal = Journal(self.cases.get, self._send_words, self._later)
        self._reports: list[TriggerReport] = []
        self._reported = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()
        self._grace_s = _ORPHAN_GRACE_S
        self._commons: Commons | None = None

    def keep(self, commons: Commons) -> None:
        """See to it from now on that triggers leave this as it was."""
        self._commons = commons
        keep(commons)

    async def serve(self, line: socket.socket) -> None:
        """Run triggers until the supervisor says stop or is gone."""
        async with asyncio.TaskGroup() as own:
            own.create_task(self._beat(), name="beat")
            own.create_task(self._send_reports(), name="reports")
            async with asyncio.TaskGroup() as self._group:
                # Only now: the first triggers may be in the socket already.
                await self._loop.create_connection(lambda: self, sock=line)
                await self._stopping.wait()
                self._group = None
                await self._cancel_all()
                await self._flush()
                await self._hang_up()
                # What still refuses to end dies with the process; its row outlives it.
                os._exit(0)

    # -- the line ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream socket's transport
        # The supervisor knows from now on that this loop turns.
        self._write(pack(Beat(0, empty_mb=memory_mb(self._pid))))

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._obey(decode_to_runner(body))

    def _obey(self, message: ToRunner) -> None:
        match message:
            case Start():
                self._start(message)
            case Answer():
                self.asking.answered(message)
            case Forget() if self._registry is not None:
                self._registry.forget(message.code_hashes)
            case Cancel():
                self._cancel_some(message)
            case Kill():
                self._kill_some(message)
            case Stored():
                self._hand_out(message)
            case Kept():
                self._tell_kept(message)
            case Setup():
                self._set_up(Registry(message.dags_folder))
                self._streams.most_queued = message.stream_queue
                self._streams.ack_timeout_s = message.stream_ack_timeout_us / 1e6
                logging.getLogger().setLevel(message.log_level)
            case Stop():
                self._grace_s = message.grace_us / 1e6
                self._stopping.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._stopping.set()
        self._gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- triggers ------------------------------------------------------------------------------

    def _set_up(self, registry: Registry) -> None:
        self._registry = registry
        self._ways = (
            registry.resolve, self._report, self._pool.take, self._unmet, registry.arguments,
            self._bound,
        )  # fmt: skip

    def _start(self, start: Start) -> None:
        if self._group is None or self._registry is None or self._ways is None:
            return  # stopping; the rows are claimed anew later
        for source in start.sources:
            self._registry.add(source)
        if len(self._labels) > _LABELS * len(self.cases) + _SPARE_LABELS:
            self._labels.clear()  # of triggers that ended; the others have their strings
        for spec in start.specs:
            old = self.cases.get(spec.trigger_id)
            if old is not None:
                if old.epoch >= spec.epoch:
                    continue  # sent twice: it runs
                self._cancel(old)
            watches = bool(spec.watcher)
            case = Watch(spec, self._labels) if watches else Case(spec, self._labels)
            self.cases[spec.trigger_id] = case
            self._spawn(case, self._live(case, self._ways))

    def _spawn(self, case: Case, coroutine: Coroutine[Any, Any, None]) -> None:
        """Give a trigger a task, whose steps are noted as its own."""
        assert self._group is not None  # noqa: S101 - its callers have looked
        steps = Steps(coroutine, case.trigger_id)
        case.task = self._group.create_task(steps, name=f"trigger-{case.trigger_id}")

    async def _live(self, case: Case, ways: Ways) -> None:
        try:
            if isinstance(case, Watch):
                if not case.leaving:
                    await watch(
                        case,
                        ways[0],
                        self._streams,
                        self._send_sighting,
                        self.journal.say,
                    )
                return
            await live(case, *ways)
        finally:
            case.task = None
            if case.seat is None:
                self._forget(case)

    def _forget(self, case: Case) -> None:
        if self.cases.get(case.trigger_id) is case:
            self.journal.ended(case)
            del self.cases[case.trigger_id]
            self._lately.append(case)
            self.asking.ended(case.trigger_id)

    def _tidy(self, trigger_id: int) -> None:
        """User code has ended, its step has not: what follows needs what all need."""
        if self._commons is not None and not self._commons.whole():
            self._commons.put_back(trigger_id)

    def _unmet(self, case: Case, trigger: BaseTrigger | None) -> None:
        """A wait ends without an event: tell the task's log what the last polls have seen."""
        self._tidy(case.trigger_id)
        if case.over:
            why = "it timed out, or its run did" if case.killing is None else "a user ended it"
            self.journal.say(case, f"nobody waits any more: {why}")
        if text := black_box(trigger, case.trigger_id):
            self.journal.say(case, text)

    def _report(self, report: TriggerReport) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # a trigger forked: its copy of us must not speak for the runner
        self._tidy(report.trigger_id)
        case = self.cases.get(report.trigger_id)
        if case is not None and report.error is not None:
            text = f"{case.classpath} failed: {report.error}"
            self.journal.say(case, text, logging.ERROR)
        self._reports.append(report)
        self._reported.set()

    def _hand_out(self, stored: Stored) -> None:
        for trigger_id, epoch, there in stored.receipts:
            case = self.cases.get(trigger_id)
            if case is not None and case.epoch == epoch:
                case.receive(there)

    def _send_sighting(self, sighting: Sighting) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # as for reports
        self.journal.flush()
        self._write(pack(Seen([sighting])))

    def _tell_kept(self, kept: Kept) -> None:
        for trigger_id, epoch, number, stored in kept.receipts:
            case = self.cases.get(trigger_id)
            if isinstance(case, Watch) and case.epoch == epoch:
                case.kept(number, stored)

    def _cancel_some(self, cancel: Cancel) -> None:
        over = set(cancel.over)
        for trigger_id in cancel.trigger_ids:
            if (case := self.cases.get(trigger_id)) is not None:
                case.over = trigger_id in over
                self._cancel(case)

    def _kill_some(self, kill: Kill) -> None:
        if self._group is None or self._registry is None:
            return  # stopping; the next runner is told
        for spec in kill.specs:
            killing = Killing(spec.epoch, kill.timeout_us / 1e6, self.journal.say, self._killed)
            case = self.cases.get(spec.trigger_id)
            if case is not None and case.trigger is not None:
                case.killing, case.over = killing, True
                self._cancel(case)
                self._loop.call_later(INSIST_S, self._kill_anyway, case, killing, case.trigger)
                continue
            if case is not None:  # it shares a poll, is not made yet, or is over
                if case.seat is not None:
                    case.killing, case.over = killing, True  # its log tells what was polled last
                self._cancel(case)
            case = self.cases[spec.trigger_id] = Case(spec, self._labels)
            case.leaving = case.cleaning = case.started = True
            self._spawn(case, self._kill_afresh(case, killing, self._registry))

    def _kill_anyway(self, case: Case, killing: Killing, trigger: BaseTrigger) -> None:
        """It does not end although it is cancelled: ask it all the same."""
        if not killing.called and self._group is not None:
            coroutine = killing.call(case, trigger)
            self._group.create_task(
                Steps(coroutine, case.trigger_id), name=f"trigger-{case.trigger_id}"
            )

    async def _kill_afresh(self, case: Case, killing: Killing, registry: Registry) -> None:
        try:
            await kill_afresh(case, killing, registry.resolve, registry.arguments)
        finally:
            case.task = None
            self._forget(case)

    def _killed(self, told: Killed) -> None:
        self.journal.flush()  # what it said comes first
        self._write(pack(told))

    def _cancel(self, case: Case, times: int = 0) -> None:
        """End a trigger without a report; ask again while it ignores being cancelled."""
        case.leaving = True
        if case.seat is not None:
            if case.over:
                self._unmet(case, case.seat.trigger)
            self._pool.drop(case)
            self._forget(case)
        task = case.task
        if task is None or task.done() or not case.started or case.cleaning:
            return  # a case that has not started yet sees that it is leaving
        if times >= _INSIST_TIMES:
            log.error(
                "trigger %d (%s) does not end when cancelled and is dropped; "
                "let CancelledError pass in run()",
                case.trigger_id, case.label,
            )  # fmt: skip
            self._drop(case, task)
            return
        task.cancel()
        self._loop.call_later(_INSIST_S, self._cancel, case, times + 1)

    def _bound(self, case: Case) -> asyncio.TimerHandle:
        return self._loop.call_later(_AFTERWARDS_S, self._cancel, case)

    def _drop(self, case: Case, task: asyncio.Task[None]) -> None:
        """Take no further step of a trigger that refuses to end."""
        coroutine = task.get_coro()
        if isinstance(coroutine, Steps):
            coroutine.abandon()
            task.cancel()  # so that there is a next step
        self._forget(case)

    async def _cancel_all(self) -> None:
        for count, case in enumerate(list(self.cases.values())):
            self._cancel(case)
            if count % _BATCH == 0:
                await asyncio.sleep(0)
        tasks = [case.task for case in self.cases.values() if case.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace_s)

    # -- reports -------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._write(pack(Beat(len(self.cases), *self._pool.counts())))
            if self._commons is not None:
                self._commons.look()

    async def _send_reports(self) -> None:
        while True:
            await self._reported.wait()
            await self._flush()

    async def _flush(self) -> None:
        while self._reports:
            await self._writable.wait()
            batch: list[TriggerReport] = []
            size = 0
            for report in self._reports[:_BATCH]:
                batch.append(report)
                size += report.size
                if size > _BATCH_BYTES:
                    break
            del self._reports[: len(batch)]
            self.journal.flush()  # what a trigger said comes before what became of it
            self._write(pack(Reports(batch)))
        self._reported.clear()

    async def _hang_up(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ORPHAN_GRACE_S):
                while self._transport is not None and not self.journal.flush():
                    await self._writable.wait()
        if self._transport is not None:
            self._transport.close()  # sends what is buffered first
            await asyncio.wait_for(self._gone.wait(), _ORPHAN_GRACE_S)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send_words(self, said: list[Said]) -> bool:
        if self._transport is None or not self._writable.is_set():
            return False
        self._write(pack(Words(said)))
        return True

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, call)

    # -- names ---------------------------------------------------------------------------------

    def name_task(self, task: asyncio.Task[object]) -> tuple[int | None, Who]:
        """Which trigger a task belongs to; called by the watchdog's thread."""
        trigger_id = started_by(task)
        if trigger_id is None:
            kind, _, number = task.get_name().partition("-")
            if kind != "trigger" or not number.isdigit():
                return None, Who(task.get_name())
            trigger_id = int(number)
        return trigger_id, self.name_trigger(trigger_id)

    def name_trigger(self, trigger_id: int) -> Who:
        """Whose a trigger is; nobody's when it has long ended. Called by the watchdog's thread."""
        case = self.cases.get(trigger_id)
        if case is None:  # it may have been its last step
            case = next((one for one in tuple(self._lately) if one.trigger_id == trigger_id), None)
        return Who("") if case is None else Who(case.label, case.dag_id, case.task_id)


def _stop_reading(case: Case) -> None:
    if isinstance(case, Watch):
        case.stop_reading()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # an optional package, and only this process has a use for it
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a trigger's own tasks and callbacks leave uncaught: one log entry, nobody else hurt."""
    error = context.get("exception")
    text = "" if error is None else f"\n{explain(error)}"
    task = context.get("task") or context.get("future")
    trigger_id = started_by(task) if isinstance(task, asyncio.Task) else None
    if trigger_id is not None:
        CURRENT.set(trigger_id)  # its log is to have it; this callback's context is its own
    log.error("a trigger's callback or task failed: %s%s", context.get("message"), text)


def _run(loop: asyncio.AbstractEventLoop, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Turn the loop to the end of ``start()``, whatever a trigger's callbacks raise into it."""
    main_task = asyncio.ensure_future(start(), loop=loop)
    while not main_task.done():
        try:
            loop.run_until_complete(main_task)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio lets these two fly out of a task or callback. The loop is intact: go on.
            log.error(
                "a trigger's task or callback raised %s; the runner goes on",
                explain_briefly(error),
            )
        except RuntimeError:
            if main_task.done():
                raise
            log.error("a trigger stopped the loop; the runner goes on")


def _prepare_process() -> None:
    for number in _DEADLY:
        # Only the supervisor stops a runner: systemd and Ctrl-C signal the whole group, and an
        # alarm that a trigger set is nobody else's. A handler, not SIG_IGN, because children that
        # a trigger starts would inherit that.
        signal.signal(number, lambda *_: None)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a socket for each trigger
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """``python -m roost.triggerer.runner LINE_FD NOTES_FD SLOT_FD``."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    own = logging.StreamHandler(mask_streams())
    own.setFormatter(logging.Formatter(f"{stamp}runner[%(process)d] %(levelname)s %(message)s"))
    _prepare_process()
    line_fd, notes, slot = (int(word) for word in sys.argv[1:4])
    attach(slot)
    # In C, and of the thread that the signal interrupts: it needs no GIL to say where that is.
    faulthandler.register(STACK_SIGNAL, slot, all_threads=False)
    note_callbacks()
    note_exits()
    for fd in (line_fd, notes, slot):
        os.set_inheritable(fd, False)
    line = socket.socket(fileno=line_fd)
    line.setblocking(False)
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(task_factory)
    loop.set_exception_handler(_complain)
    runner = Runner(loop)
    logging.basicConfig(level=logging.INFO, handlers=[Handler(runner.journal, own)])
    share_streams(runner.journal.printed)
    runner.keep(Commons(loop))
    watchdog = Watchdog(loop, runner.name_task, runner.name_trigger, notes)
    watchdog.start()
    with serving_triggers(runner.asking):
        _run(loop, lambda: runner.serve(line))
    os._exit(0)  # threads that triggers left behind do not keep the process


if __name__ == "__main__":
    main()
