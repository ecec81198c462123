"""The triggers of a runner: how each begins, ends, and is spoken for.

Every trigger lives in one ``asyncio.TaskGroup`` and ends as a report
(:mod:`roost.triggerer.case`), so none can take the group down.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from roost.dag.trigger import BaseTrigger
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.asking import Asking
from roost.triggerer.cancelling import Canceller
from roost.triggerer.case import (
    BoundFn,
    Case,
    RenderFn,
    ReportFn,
    ResolveFn,
    TakeFn,
    TellFn,
    live,
)
from roost.triggerer.commons import Commons
from roost.triggerer.fanout import Streams
from roost.triggerer.journal import Journal, black_box
from roost.triggerer.killing import INSIST_S, Killing, kill_afresh
from roost.triggerer.messages import (
    Answer,
    Beat,
    Cancel,
    Forget,
    Kept,
    Kill,
    Killed,
    Seen,
    Setup,
    Sighting,
    Start,
    Stop,
    Stored,
    ToRunner,
)
from roost.triggerer.pooled import Pool
from roost.triggerer.pulse import memory_mb
from roost.triggerer.registry import Registry
from roost.triggerer.steps import Steps, keep, put_back, started_by
from roost.triggerer.uplink import GRACE_S, Uplink
from roost.triggerer.watchdog import Who
from roost.triggerer.watching import Watch, watch

__all__ = ["Host"]

BEAT_S = 1.0
# Strings that triggers share, for each trigger: every run has an id of its own.
_LABELS = 5
_SPARE_LABELS = 1_000
# So many that have ended can still be named, should it turn out that they have blocked the loop.
_LATELY = 500

Ways = tuple[ResolveFn, ReportFn, TakeFn, TellFn, RenderFn, BoundFn]
"""What :func:`live` needs besides the case."""


class Host:
    """The triggers of this process, under the orders of their supervisor.

    Args:
        loop: theirs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._group: asyncio.TaskGroup | None = None
        self._registry: Registry | None = None
        self._ways: Ways | None = None  # for all triggers: each bound method weighs 64 bytes
        self._labels: dict[str, str] = {}  # one copy of each string that many triggers share
        self.cases: dict[int, Case] = {}
        self._lately: deque[Case] = deque(maxlen=_LATELY)
        self._stopping = asyncio.Event()
        self._grace_s = GRACE_S
        self._commons: Commons | None = None
        self._uplink = Uplink(
            self._greet, self._obey, lambda: self.journal.flush(), self._stopping.set
        )
        send = self._uplink.send
        self.journal = Journal(self.cases.get, self._uplink.send_words, self._later)
        self.asking = Asking(loop, send)
        self._pool = Pool(self._report, self._forget, send, self._unmet)
        self._streams = Streams(_stop_reading, send)
        self._canceller = Canceller(loop, self._pool, self._unmet, self._forget)

    def keep(self, commons: Commons) -> None:
        """See to it from now on that triggers leave this as it was."""
        self._commons = commons
        keep(commons)

    async def serve(self, line: socket.socket) -> None:
        """Run triggers until the supervisor says stop or is gone."""
        async with asyncio.TaskGroup() as own:
            own.create_task(self._beat(), name="beat")
            own.create_task(self._uplink.run(), name="reports")
            async with asyncio.TaskGroup() as self._group:
                # Only now: the first triggers may be in the socket already.
                await self._loop.create_connection(lambda: self._uplink, sock=line)
                await self._stopping.wait()
                self._group = None
                await self._canceller.cancel_all(self.cases, self._grace_s)
                await self._uplink.flush()
                await self._uplink.hang_up()
                # What still refuses to end dies with the process; its row outlives it.
                os._exit(0)

    # -- orders --------------------------------------------------------------------------------

    def _greet(self) -> None:
        # The supervisor knows from now on that this loop turns.
        self._uplink.send(Beat(0, empty_mb=memory_mb(self._pid)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._uplink.send(Beat(len(self.cases), *self._pool.counts()))
            if self._commons is not None:
                self._commons.look()

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

    # -- triggers ------------------------------------------------------------------------------

    def _set_up(self, registry: Registry) -> None:
        self._registry = registry
        self._ways = (
            registry.resolve, self._report, self._pool.take, self._unmet, registry.arguments,
            self._canceller.cancel_soon,
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
                self._canceller.cancel(old)
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

    def _unmet(self, case: Case, trigger: BaseTrigger | None) -> None:
        """A wait ends without an event: tell the task's log what the last polls have seen."""
        put_back(case.trigger_id)
        if case.over:
            why = "it timed out, or its run did" if case.killing is None else "a user ended it"
            self.journal.say(case, f"nobody waits any more: {why}")
        if text := black_box(trigger, case.trigger_id):
            self.journal.say(case, text)

    def _report(self, report: TriggerReport) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # a trigger forked: its copy of us must not speak for the runner
        # User code has ended, its step has not: what follows needs what all need.
        put_back(report.trigger_id)
        case = self.cases.get(report.trigger_id)
        if case is not None and report.error is not None:
            text = f"{case.classpath} failed: {report.error}"
            self.journal.say(case, text, logging.ERROR)
        self._uplink.report(report)

    def _hand_out(self, stored: Stored) -> None:
        for trigger_id, epoch, there in stored.receipts:
            case = self.cases.get(trigger_id)
            if case is not None and case.epoch == epoch:
                case.receive(there)

    def _send_sighting(self, sighting: Sighting) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # as for reports
        self.journal.flush()
        self._uplink.send(Seen([sighting]))

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
                self._canceller.cancel(case)

    def _kill_some(self, kill: Kill) -> None:
        if self._group is None or self._registry is None:
            return  # stopping; the next runner is told
        for spec in kill.specs:
            killing = Killing(spec.epoch, kill.timeout_us / 1e6, self.journal.say, self._killed)
            case = self.cases.get(spec.trigger_id)
            if case is not None and case.trigger is not None:
                case.killing, case.over = killing, True
                self._canceller.cancel(case)
                self._loop.call_later(INSIST_S, self._kill_anyway, case, killing, case.trigger)
                continue
            if case is not None:  # it shares a poll, is not made yet, or is over
                if case.seat is not None:
                    case.killing, case.over = killing, True  # its log tells what was polled last
                self._canceller.cancel(case)
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
        self._uplink.send(told)

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
