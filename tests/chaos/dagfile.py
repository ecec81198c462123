"""The load of the kill test, a DAG file: tasks that wait in every way and note what they do.

Each task plays a *script*: a list of steps for each of its tries. What a task comes to follows from
its script alone (:func:`outcomes`), whatever is killed meanwhile. Every body and every trigger
writes to the witness, a file that no process holds open and that a crash cannot take back.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from roost.dag import DAG, Asset, AssetWatcher
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
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TimeDeltaTrigger,
    TriggerEvent,
)

Script = list[list[str]]

# By DAG and task: the steps of each try. A step is WHAT:HOW; see Actor._wait and Beacon.run. A try
# after a user's clear goes on with the next of them, or with the last one again.
SCRIPTS: dict[str, dict[str, Script]] = {
    "hops": {
        "timer": [["timer:1"]],
        "two": [["poll:0.5", "timer:0.5"]],
        "ten": [["poll:0.2", "timer:0.2", "now", "poll:0.5", "now"] * 2],
        "long": [["poll:8"]],
        "longer": [["poll:15"]],
        "file": [["file:1", "poll:0.2"]],
        "busy": [["work:1.5", "poll:0.2", "work:1.5", "timer:0.2", "work:1"]],
    },
    "events": {
        "before": [["event:before"]],
        "during": [["event:during", "poll:0.3", "event:during"]],
        "after": [["event:after", "now", "event:after"]],
        "asked": [["event:asked", "event:asked"]],
    },
    "ends": {
        "late": [["timeout:2"], ["timer:0.2"]],
        "never": [["timeout:1"]],
        "broken": [["fail"], ["poll:0.2", "fail"], ["now"]],
        "raises": [["raise"], ["timer:0.2", "raise"], ["poll:0.2"]],
        "race": [["race:1"]],
        "well": [["end:success"]],
        "bad": [["end:failed"], ["poll:0.2", "end:failed"]],
        "left": [["poll:0.2", "end:skipped"]],
        "moment": [["endtimer:1"]],
    },
    "begun": {
        "by_trigger": [["start", "poll:0.2"]],
        "again": [["start", "raise"], ["start", "timer:0.2"]],
    },
    "mapped": {"each": [["poll:0.4", "timer:0.4"]]},
    "pooled": {
        "narrow": [["poll:0.5", "timer:0.5"]],
        "second": [["timer:0.5", "poll:0.5"]],
        "third": [["poll:1"]],
    },
    "seats": {
        "one": [["seat:0.5", "timer:0.2", "seat:0.2"]],
        "two": [["seat:2"]],
        "twin": [["twin:1"]],
        "other": [["twin:1"]],
        "broken": [["seatfail"], ["seat:0.2"]],
    },
    "held": {  # long enough for a user to come
        "poll": [["poll:12"], ["poll:0.3"]],
        "seat": [["seat:12"], ["seat:0.3"]],
        "timer": [["timer:12"], ["timer:0.3"]],
        "key": [["event:asked", "poll:6"], ["now"]],
    },
    "tide": {"catch": [["poll:0.2"]]},
}
WATCHED = "tide"  # runs of this DAG are made by what a watcher sees
SEA = "chaos://sea"
MAPPED = 4
STARTED = -1  # in the place of the dispatch that deferred, where none did
POOLS = {"narrow": (2, 50)}  # slots and deferred_percent
FAILING = {"timeout", "fail", "raise", "seatfail"}


def outcomes(script: Script) -> set[str]:
    """The states that a task with this script may end in."""
    found: set[str] = set()
    for number, steps in enumerate(script):
        what, _, how = steps[-1].partition(":")
        if what == "race":
            found.add("success")
        fails = what in FAILING or what == "race" or (what == "end" and how == "failed")
        if not fails:
            return found | {{"skipped": "skipped"}.get(how, "success")}
        if number == len(script) - 1:
            found.add("failed")
    return found


def folder() -> Path:
    """Where the kill test keeps what tasks and triggers write, and the files they wait for."""
    return Path(os.environ["ROOST_CHAOS"])


def note(what: str, **fields: Any) -> None:
    """One line in the witness, of a task, a trigger or a user."""
    testify(folder(), what, **fields)


def testify(place: Path, what: str, **fields: Any) -> None:
    """One line in the witness below a folder: one write to a file opened to append."""
    line = {"w": what, "t": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "pid": os.getpid()}
    data = json.dumps(line | fields).encode() + b"\n"
    file = os.open(place / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


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
        timeout: float | None = None
        ends = what in ("end", "endtimer")
        kwargs: dict[str, Any] = {"nonce": me["d"], "hop": me["hop"] + 1}
        trigger: BaseTrigger
        match what:
            case "timer" | "endtimer":
                trigger = TimeDeltaTrigger(float(how), end_from_trigger=ends)
                kwargs["due"] = int(trigger.moment.timestamp() * 1_000_000)
            case "event":
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
                timeout = float(how) if what in ("timeout", "race") else None
        note("end", **me, how="defer", step=step)
        self.defer(
            trigger=trigger,
            method_name=None if ends else "go_on",
            kwargs=None if ends else kwargs,
            timeout=timeout,
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
        events = context["triggering_asset_events"][SEA]
        things = sorted(event.extra["thing"] for event in events)
        note("caught", run=context["run_id"], things=things)
        return super().execute(context)


_KINDS: dict[str, type[Actor]] = {"begun": Starter, WATCHED: Catch}


def total(ti: Any) -> int:
    """The sum of what the mapped instances came to."""
    return sum(ti.xcom_pull(task_ids="each"))


def build(dag_id: str) -> DAG:
    """One DAG of the table above."""
    scripts = SCRIPTS[dag_id]
    with DAG(
        dag_id,
        schedule=[Asset(SEA, watchers=AssetWatcher("tide", Tide()))] if dag_id == WATCHED else None,
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
            pool = "narrow" if dag_id == "pooled" else "default_pool"
            operator = _KINDS.get(dag_id, Actor)
            operator(task_id=task_id, script=script, pool=pool)
    return dag


for name in SCRIPTS:
    globals()[name] = build(name)
