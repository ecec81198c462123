"""Triggers inside a simulation: timers fire by the clock, poll triggers run on a virtual loop.

The loop's ``time()`` is the simulation's: a trigger that sleeps for a day fires as soon as the
simulation gets there. A trigger that waits for something real (a socket, a thread) is given real
time, but only when nothing else is left to happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine

from roost.dag.loader import LoadedFile
from roost.dag.registry import resolve_trigger
from roost.dag.runtime import serving_triggers, using
from roost.dag.trigger import BaseTrigger
from roost.models.engine import Tx, read, transact
from roost.models.queries import external, jobs, timers, trigger_events, trigger_specs, triggers
from roost.support.clock import SECOND
from roost.support.crypto import Keyring
from roost.support.task_requests import ConnectionGet, Reply, Request, VariableGet, XComPull
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.asking import Asking
from roost.triggerer.case import Case, live
from roost.triggerer.messages import Answer, Ask
from roost.triggerer.starting import render_start

__all__ = ["Waiting"]

_BATCH = 10_000


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is somebody else's."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._told = clock
        super().__init__()
        # A moment of ours may differ from the float it became by a part of a microsecond.
        self._clock_resolution = 2e-6
        self._in_threads = 0

    def run_in_executor(  # type: ignore[override]  # whatever the types are, they go through
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Count what goes on in threads."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._back_from_thread)
        return future

    def _back_from_thread(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def awaits_the_world(self) -> bool:
        """Whether something that has a time-out waits for a socket or a thread.

        A connection that is kept open between two polls is no reason to wait; nobody puts a
        time-out around that.
        """
        sockets = len(self._selector.get_map()) - 1  # type: ignore[attr-defined]  # our own pipe
        if self._in_threads <= 0 and sockets <= 0:
            return False
        return any(
            getattr(timer._callback, "__name__", "") in ("_on_timeout", "_timeout")
            for timer in self._scheduled  # type: ignore[attr-defined]
            if not timer.cancelled()
        )

    def time(self) -> float:
        return self._told() / SECOND

    def turn_over(self) -> None:
        """Run what is ready, and what that makes ready, without waiting for anything."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]  # no public way to ask
                return

    def next_timer(self) -> int | None:
        """When the first sleeper wakes, in microseconds."""
        pending = [
            timer.when()
            for timer in self._scheduled  # type: ignore[attr-defined]
            if not timer.cancelled()
        ]
        return None if not pending else round(min(pending) * SECOND)


class _Answering:
    """Answers what the templates of one trigger ask."""

    def __init__(self, reply: Callable[[Ask], Reply], trigger_id: int) -> None:
        self._reply = reply
        self._trigger_id = trigger_id

    def call(self, request: Request) -> Reply:
        """Answer at once."""
        if not isinstance(request, XComPull | VariableGet | ConnectionGet):
            return Reply(error="a trigger may only read Connections, Variables, XComs")
        return self._reply(Ask(0, self._trigger_id, request))


class Waiting:
    """The triggerer of a simulation.

    Args:
        engine: the simulation's database.
        job_id: of its triggerer.
        files: the loaded DAG files by their place below the DAGs folder.
        clock: the simulation's time in microseconds.
        answer: replies to what triggers ask.
        keys: of the events from outside.
        patience_s: how long the clock stands still for what real servers answer.
    """

    def __init__(
        self,
        engine: Engine,
        job_id: int,
        files: Mapping[str, LoadedFile],
        clock: Callable[[], int],
        answer: Callable[[Ask], Reply],
        keys: Keyring,
        patience_s: float,
    ) -> None:
        self._engine = engine
        self._job_id = job_id
        self._files = files
        self._clock = clock
        self._keys = keys
        self._loop = _VirtualLoop(clock)
        self._asking = Asking(self._loop, self._answer)
        self._reply = answer
        self._patience_s = patience_s
        self._cases: dict[int, tuple[Case, asyncio.Task[None]]] = {}
        self._reports: list[TriggerReport] = []
        #: False while there can be no trigger at all: nothing needs to be asked then.
        self.anybody = False

    @property
    def polling(self) -> list[str]:
        """Poll triggers that wait now: for which task, and of what class."""
        return [f"{case.label} ({case.classpath})" for case, _ in self._cases.values()]

    def next_due(self) -> int | None:
        """When the next timer fires or the next sleeping trigger wakes."""
        with read(self._engine) as tx:
            seen = triggers.look(tx, self._job_id)
        self.anybody = bool(seen.next_due or seen.waiting or seen.heard or self._cases)
        sleeper = self._loop.next_timer() if self._cases else None
        return min((at for at in (seen.next_due, sleeper) if at is not None), default=None)

    def look(self) -> bool:
        """Fire what is due and let poll triggers run on; True when an event was stored."""
        fired = transact(self._engine, lambda tx: timers.fire_timers(tx, self._clock(), _BATCH))
        fired += transact(self._engine, self._match)
        transact(self._engine, self._claim)
        if self._cases:
            self._turn_over()
            self._let_the_world_answer()
        return self._store() or fired > 0

    def wait_really(self, seconds: float) -> bool:
        """Give poll triggers real time, until one has an event; False when none came."""
        give_up = time.monotonic() + seconds
        while not self._reports and time.monotonic() < give_up:
            time.sleep(0.001)
            self._turn_over()
        return self._store()

    def close(self) -> None:
        """Cancel what still waits."""
        for case, task in self._cases.values():
            case.leaving = True
            task.cancel()
        if self._cases:
            self._turn_over()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _let_the_world_answer(self) -> None:
        """Stand still while a request is under way: its time-out goes by a clock that jumps."""
        give_up = time.monotonic() + self._patience_s
        while self._loop.awaits_the_world() and time.monotonic() < give_up:
            time.sleep(0.001)
            self._turn_over()

    def _turn_over(self) -> None:
        with serving_triggers(self._asking):
            self._loop.turn_over()

    def _answer(self, ask: Ask) -> None:
        self._asking.answered(Answer(ask.number, self._reply(ask)))

    def _match(self, tx: Tx) -> int:
        """Give events from outside to who waits for them; gives how many that woke."""
        if not triggers.look(tx, self._job_id).heard:
            return 0
        return external.match(tx, lambda id_, text: self._keys.decrypt(text, f"event {id_}")).woken

    def _claim(self, tx: Tx) -> None:
        """Start new poll triggers, stop those that are not waited for any more."""
        if not triggers.look(tx, self._job_id).waiting and not self._cases:
            return
        jobs.renew(tx, self._job_id)
        new = triggers.claim(tx, self._job_id, _BATCH)
        for spec in trigger_specs.specs(tx, self._job_id, new):
            case = Case(spec, {})
            files = self._files[spec.fileloc]

            async def resolve(case: Case, files: LoadedFile = files) -> type[BaseTrigger]:
                return resolve_trigger(case.source, files.triggers, files)

            async def render(case: Case, files: LoadedFile = files) -> dict[str, Any]:
                # What its templates ask is answered on the spot: nothing else runs meanwhile.
                dag = files.dags.get(case.dag_id)
                with using(_Answering(self._reply, case.trigger_id), None):
                    return {} if case.start is None else render_start(case.start, dag)

            coroutine = live(case, resolve, self._reports.append, render=render)
            self._cases[spec.trigger_id] = (case, self._loop.create_task(coroutine))
        held = triggers.held(tx, self._job_id)
        for trigger_id in [id_ for id_ in self._cases if id_ not in held]:
            case, task = self._cases.pop(trigger_id)
            case.leaving = True
            task.cancel()

    def _store(self) -> bool:
        reports, self._reports[:] = list(self._reports), []
        if not reports:
            return False
        cases = [self._cases.pop(report.trigger_id, None) for report in reports]

        def step(tx: Tx) -> bool:
            jobs.renew(tx, self._job_id)
            return bool(trigger_events.store(tx, self._job_id, reports, self._clock()))

        stored = transact(self._engine, step)
        for case, _ in filter(None, cases):
            case.receive(stored)
        self._turn_over()
        return stored
