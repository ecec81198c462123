"""The load of the kill test, a DAG file: tasks that wait in every way and note what they do.

They are told what to do by :mod:`tests.chaos.scripts`, and note it in the witness.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from roost.dag import DAG, Asset, AssetWatcher
from roost.dag.asset import AssetAny, AssetExpression
from roost.exceptions import RoostException
from roost.operators import BaseOperator, PythonOperator
from roost.support.processes import start_ticks
from roost.triggers import (
    BaseEventTrigger,
    BaseTrigger,
    ExternalTrigger,
    FileTrigger,
    PooledTrigger,
    StartTriggerArgs,
    StreamItem,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TimeDeltaTrigger,
    TriggerEvent,
)
from tests.chaos.scripts import (
    BEGUN,
    MAPPED,
    QUEUES,
    SCRIPTS,
    SEA,
    STARTED,
    SURFERS,
    WATCHED,
    Script,
    folder,
    note,
    queue_of,
    surfers_of,
    timeout_of,
)


class Beacon(BaseTrigger):
    """Shines by itself, in all the ways in which a polled trigger may end."""

    def __init__(self, nonce: int | str, step: str) -> None:
        self.nonce, self.step = nonce, step

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Beacon", {"nonce": self.nonce, "step": self.step})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        what, _, how = self.step.partition(":")
        note("run", nonce=self.nonce, trigger=self.trigger_id)
        if what == "timeout":
            await asyncio.sleep(3600)
        if what in ("poll", "race"):
            await asyncio.sleep(float(how))
        if what == "fail":
            raise RuntimeError(f"the trigger of {self.nonce} is broken")
        note("fire", nonce=self.nonce, trigger=self.trigger_id)
        ends = {"success": TaskSuccessEvent, "failed": TaskFailedEvent, "skipped": TaskSkippedEvent}
        yield ends[how](reason="its beacon") if what == "end" else TriggerEvent(self.nonce)

    async def cleanup(self) -> None:
        note("cleanup", nonce=self.nonce, trigger=self.trigger_id)

    async def on_kill(self) -> None:
        note("on_kill", nonce=self.nonce, trigger=self.trigger_id)


class Seat(PooledTrigger):
    """Shines from a moment on, for all that ask for the same: one poll for everybody."""

    poll_interval = 0.3

    def __init__(self, nonce: int | str, step: str, ready: float) -> None:
        self.nonce, self.step, self.ready = nonce, step, ready

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Seat", {"nonce": self.nonce, "step": self.step, "ready": self.ready})

    def poll_key(self) -> str:
        return str(self.nonce)

    @classmethod
    async def poll_many(
        cls, triggers: Mapping[str, Seat]
    ) -> Mapping[str, TriggerEvent | BaseException]:
        found: dict[str, TriggerEvent | BaseException] = {}
        for key, seat in triggers.items():
            if seat.step == "seatfail":
                found[key] = RoostException(f"the seat of {key} is broken")
            elif time.time() >= seat.ready:
                found[key] = TriggerEvent(seat.nonce)
        return found

    async def on_kill(self) -> None:
        note("on_kill", nonce=self.nonce, trigger=self.trigger_id)


class Tide(BaseEventTrigger):
    """Brings what lies on the beach, and takes it away when its event is stored."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Tide", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            for file in sorted((folder() / "beach").iterdir()):
                yield TriggerEvent({"thing": file.name}, key=file.name)
                file.unlink(missing_ok=True)
            await asyncio.sleep(0.2)


class Surf(BaseEventTrigger):
    """One of those who look at the waves together: each is to bring all of its own, once.

    The broker is a folder. It forgets a wave when all who are to have it have said so by a mark,
    wherever they are, and until then brings it again to who has acknowledged it.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Surf", {"number": self.number})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise NotImplementedError("it shares a stream")
        yield

    def shared_stream_key(self) -> str:
        return "surf"

    @classmethod
    async def open_shared_stream(cls, _kwargs: dict[str, Any]) -> AsyncIterator[StreamItem]:
        stream = f"{os.getpid()}.{time.time_ns()}"
        again: dict[str, float] = {}  # when what was brought may be brought again
        numbers = count(1)
        while True:
            for file in sorted((folder() / "surf").iterdir()):
                if all(_mark(file.name, one).exists() for one in surfers_of(file.name)):
                    file.unlink(missing_ok=True)
                elif again.get(file.name, 0.0) <= time.monotonic():
                    again[file.name] = float("inf")
                    value = {"stream": stream, "number": next(numbers), "wave": file.name}
                    answer = partial(_answered, value, again)
                    yield StreamItem(value, partial(answer, "ack"), partial(answer, "nack"))
            await asyncio.sleep(0.2)

    @classmethod
    async def filter_shared_stream(
        cls, stream: AsyncIterator[Any], kwargs: dict[str, Any]
    ) -> AsyncIterator[TriggerEvent]:
        me = kwargs["number"]
        life = f"{os.getpid()}.{time.time_ns()}"
        async for value in stream:
            note("fed", by=me, life=life, **value)
            wave = value["wave"]
            if me in surfers_of(wave) and not _mark(wave, me).exists():
                yield TriggerEvent({"thing": f"{wave}@{me}"}, key=wave)
                _mark(wave, me).touch()  # it is stored
            note("dealt", by=me, life=life, **value)


def _mark(wave: str, number: int) -> Path:
    return folder() / "marks" / f"{wave}@{number}"


async def _answered(value: dict[str, Any], again: dict[str, float], how: str) -> None:
    note(how, **value)
    again[value["wave"]] = time.monotonic() + 1


class Actor(BaseOperator):
    """Plays its script, one step a dispatch."""

    def __init__(self, *, script: Script, **others: Any) -> None:
        super().__init__(retries=len(script) - 1, retry_delay=timedelta(seconds=0.2), **others)
        self.script = script

    def execute(self, context: Any) -> Any:
        return self._play(context, 0)

    def go_on(
        self,
        context: Any,
        event: Any = None,
        nonce: int = 0,
        hop: int = 0,
        expects: Any = None,
        due: int = 0,
    ) -> Any:
        """After a wait: ``nonce`` is the dispatch that deferred; what came must be its event."""
        if nonce == STARTED:
            expects = context["run_id"]
        got = event["nonce"] if isinstance(event, dict) and "nonce" in event else event
        stale = expects is not None and got != expects
        early = bool(due) and time.time_ns() // 1000 < due
        return self._play(context, hop, came=nonce, stale=stale, early=early, got=repr(event))

    def _play(self, context: Any, hop: int, **came: Any) -> Any:
        ti = context["ti"]
        key = [ti.dag_id, context["run_id"], ti.task_id, ti.map_index]
        me = {"ti": key, "d": context["dispatch_id"], "try": ti.try_number, "hop": hop}
        self._claim_to_live(key, me)
        note("begin", **me, **came)
        steps = self.script[min(ti.try_number, len(self.script)) - 1]
        try:
            while hop < len(steps) and steps[hop].startswith("work:"):
                time.sleep(float(steps[hop].partition(":")[2]))
                hop += 1
            me["hop"] = hop
            if hop < len(steps) and steps[hop] == "raise":
                note("end", **me, how="raise")
                raise RuntimeError("as its script says")
            if hop < len(steps):
                self._wait(me, key, steps[hop])
            note("end", **me, how="return")
            return hop
        finally:
            self._seen(key).unlink(missing_ok=True)

    def _seen(self, key: list[Any]) -> Path:
        return folder() / "alive" / f"{'%'.join(map(str, key))}%{os.getpid()}"

    def _claim_to_live(self, key: list[Any], me: dict[str, Any]) -> None:
        """Say that we live, then see who else does: of two at least one sees the other."""
        mine = self._seen(key)
        mine.write_text(f"{os.getpid()} {start_ticks(os.getpid())}")
        for other in mine.parent.glob(f"{'%'.join(map(str, key))}%*"):
            try:
                pid, ticks = map(int, other.read_text().split())
            except (FileNotFoundError, ValueError):
                continue  # it has just gone, or is just coming: then it sees us
            if other != mine and start_ticks(pid) == ticks:
                note("double", **me, other=pid)

    def _wait(self, me: dict[str, Any], key: list[Any], step: str) -> None:
        what, _, how = step.partition(":")
        nonce: int | str = me["d"]
        place = "%".join(map(str, [*key, me["try"], me["hop"], how]))
        ends = what in ("end", "endtimer")
        kwargs: dict[str, Any] = {"nonce": me["d"], "hop": me["hop"] + 1}
        trigger: BaseTrigger
        match what:
            case "timer" | "endtimer":
                trigger = TimeDeltaTrigger(float(how), end_from_trigger=ends)
                kwargs["due"] = int(trigger.moment.timestamp() * 1_000_000)
            case "timerrace":
                trigger = TimeDeltaTrigger(float(how))
            case "event" | "await":
                trigger = ExternalTrigger(place)
                kwargs["expects"] = place
            case "file":
                file = folder() / "files" / place
                if me["try"] > 1:  # nobody else knows of it
                    file.touch()
                trigger = FileTrigger(str(file), poke_interval=0.5)
            case "seat" | "seatfail" | "twin":
                if what == "twin":
                    nonce = key[1]  # others of this run wait for the same
                trigger = Seat(nonce, step, time.time() + float(how or 0))
                kwargs["expects"] = nonce
            case _:
                trigger = Beacon(nonce, step)
                kwargs["expects"] = nonce
        note("end", **me, how="defer", step=step, key=place)
        self.defer(
            trigger=trigger,
            method_name=None if ends else "go_on",
            kwargs=None if ends else kwargs,
            timeout=timeout_of(step),
        )


class Starter(Actor):
    """Its first step is its trigger's."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls=Beacon,
        trigger_kwargs={"nonce": "{{ run_id }}", "step": "poll:0.5"},
        next_method="go_on",
        next_kwargs={"nonce": STARTED, "hop": 1},
    )


class Catch(Actor):
    """Notes for which events its run was made."""

    def execute(self, context: Any) -> Any:
        events = context["triggering_asset_events"]
        things = sorted(event.extra["thing"] for uri in events for event in events[uri])
        note("caught", run=context["run_id"], things=things)
        return super().execute(context)


def total(ti: Any) -> int:
    """The sum of what the mapped instances came to."""
    return sum(ti.xcom_pull(task_ids="each"))


def schedule(dag_id: str) -> AssetExpression | list[Asset] | None:
    """What makes the runs of a DAG; None: the load does."""
    if dag_id == "tide":
        return [Asset(SEA, watchers=AssetWatcher("tide", Tide()))]
    if dag_id != "surf":
        return None
    queues = ["default", "default", QUEUES["a"][-1]]
    return AssetAny(
        *(
            Asset(f"{SEA}/{number}", watchers=AssetWatcher("surf", Surf(number), queue=queue))
            for number, queue in zip(SURFERS, queues, strict=True)
        )
    )


def build(dag_id: str) -> DAG:
    """One DAG of the scripts."""
    scripts = SCRIPTS[dag_id]
    with DAG(
        dag_id,
        schedule=schedule(dag_id),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        max_active_runs=1000,
        max_active_tasks=1000,
    ) as dag:
        if dag_id == "mapped":
            (script,) = scripts.values()
            each = Actor.partial(task_id="each").expand(script=[script] * MAPPED)
            each >> PythonOperator(task_id="total", python_callable=total)
            return dag
        for task_id, script in scripts.items():
            operator = Catch if dag_id in WATCHED else Starter if task_id in BEGUN else Actor
            operator(
                task_id=task_id,
                script=script,
                pool="narrow" if dag_id == "pooled" else "default_pool",
                queue=queue_of(dag_id, task_id),
            )
    return dag


for name in SCRIPTS:
    globals()[name] = build(name)
