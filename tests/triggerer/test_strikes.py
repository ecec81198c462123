"""Who ended the runner: noted at each step, struck, held back, failed with the third strike."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.triggerer import steps
from roost.triggerer.case import CURRENT
from roost.triggerer.messages import SHARED_BYTES, SLOT_BYTES
from roost.triggerer.steps import Steps, started_by, task_factory
from roost.triggerer.strikes import NEVER, STRIKES, Strikes
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import asyncio, os, threading, time
from roost.dag.trigger import BaseTrigger, TriggerEvent


class Named(BaseTrigger):
    def serialize(self):
        return (type(self).__name__, {})


class Exits(Named):
    async def run(self):
        await asyncio.sleep(0.5)
        os._exit(9)
        yield


class ExitsInTask(Named):
    async def run(self):
        async def leave():
            await asyncio.sleep(0.1)
            os._exit(8)
        await asyncio.create_task(leave())
        yield


class Hangs(Named):
    async def run(self):
        await asyncio.sleep(0.1)
        time.sleep(60)
        yield


class ExitsInCallback(Named):
    async def run(self):
        asyncio.get_running_loop().call_soon(os._exit, 7)
        await asyncio.sleep(60)
        yield


class ExitsInThread(Named):
    async def run(self):
        threading.Thread(target=lambda: os._exit(6)).start()
        await asyncio.sleep(60)
        yield


class Pid(BaseTrigger):
    '''Blocks now and then; fires with the pids of its processes once these are two.'''

    def __init__(self, note):
        self.note = note

    def serialize(self):
        return ("Pid", {"note": self.note})

    async def run(self):
        await asyncio.sleep(0.1)
        with open(self.note, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(0.6)  # the line
        await asyncio.sleep(0.3)
        pids = open(self.note).read().split()
        if len(pids) == 1:
            time.sleep(0.6)
            await asyncio.sleep(0.3)
            time.sleep(1.1)
        await asyncio.sleep(60 if len(set(pids)) == 1 else 0)
        yield TriggerEvent(pids)


class Sleeps(BaseTrigger):
    def __init__(self, pids, go):
        self.pids, self.go = pids, go

    def serialize(self):
        return ("Sleeps", {"pids": self.pids, "go": self.go})

    async def run(self):
        with open(self.pids, "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not os.path.exists(self.go):
            await asyncio.sleep(1)
        yield TriggerEvent("well")


class Insists(BaseTrigger):
    '''Blocks, and would go on for ever.'''

    def __init__(self, note):
        self.note = note

    def serialize(self):
        return ("Insists", {"note": self.note})

    async def run(self):
        await asyncio.sleep(0.1)
        time.sleep(0.5)
        await asyncio.sleep(3600)
        yield

    async def cleanup(self):
        with open(self.note, "a") as file:
            file.write(f"{self.trigger_id}\\n")


class Healthy(Named):
    async def run(self):
        for _ in range(3):
            await asyncio.sleep(1)
        yield TriggerEvent("well")
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


@pytest.fixture
def slot() -> Iterator[int]:
    """The shared memory of a runner, in this process; nobody's afterwards."""
    fd = os.memfd_create("slot")
    os.ftruncate(fd, SHARED_BYTES)
    before = steps._slot
    steps.attach(fd)
    yield fd
    steps._slot = before
    os.close(fd)


def noted(slot: int) -> int:
    return int.from_bytes(os.pread(slot, SLOT_BYTES, 0), sys.byteorder)


def wait_events(world: World, *numbers: int) -> dict[int, dict[str, object]]:
    wait_until(lambda: set(numbers) <= set(world.events()), timeout=90, what=f"events of {numbers}")
    return world.events()


def test_steps_are_noted(slot: int) -> None:
    """A trigger's task and the tasks it starts are noted while they execute, never between."""
    seen: list[int] = []

    async def below() -> str:
        seen.append(noted(slot))
        await asyncio.sleep(0)
        seen.append(noted(slot))
        return "value"

    async def trigger() -> str:
        CURRENT.set(7)
        seen.append(noted(slot))
        task = asyncio.create_task(below())
        assert started_by(task) == 7
        # What anyio asks of the coroutine of a task.
        assert inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED  # type: ignore[arg-type]
        try:
            return await task
        finally:
            seen.append(noted(slot))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(task_factory)
        first = loop.create_task(Steps(trigger(), 7))
        while not first.done():
            assert noted(slot) == 0
            await asyncio.sleep(0)
        assert first.result() == "value"
        hurt = loop.create_task(Steps(asyncio.sleep(60), 8))
        await asyncio.sleep(0)
        hurt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hurt
        assert noted(slot) == 0

    asyncio.run(main())
    assert seen == [7, 7, 7, 7]


def test_who_rests_goes_on_resting_while_another_is_tried() -> None:
    """D20: else of several culprits one comes back at each end, and none is ever alone."""
    strikes = Strikes()
    strikes.hold(1, 7, 5.0)
    strikes.hold(2, 7, 90.0)
    strikes.hold(3, 7, NEVER)
    strikes.hold(4, 7, 5.0)
    strikes.hold_on({1, 2, 3, 9}, 50.0)
    held = [(one, at) for one in (1, 2, 3, 4, 9) for at in (4.0, 49.0, 51.0, 91.0)]
    assert [strikes.holds(one, 7, at) for one, at in held] == [
        *(True, True, False, False),
        *(True, True, True, False),
        *(True, True, True, True),
        *(True, False, False, False),
        *(False, False, False, False),
    ]


def test_strikes_hold_back() -> None:
    """A trigger is held back until a moment or for ever; another claim begins anew."""
    strikes = Strikes()
    assert strikes.next_s(0) == NEVER
    strikes.hold(1, 5, 104)
    assert strikes.next_s(101) == 3
    assert strikes.held_back(101) == 1
    assert strikes.holds(1, 5, 100)
    assert not strikes.holds(1, 6, 100)
    assert not strikes.holds(2, 5, 100)
    assert not strikes.holds(1, 5, 104)
    strikes.hold(1, 5, NEVER)
    assert strikes.holds(1, 5, 1e9)
    assert (strikes.held_back(300), strikes.next_s(300)) == (0, NEVER)
    strikes.keep({2: 1})
    assert not strikes.holds(1, 5, 0)


def test_short_blocks_add_up() -> None:
    """D20: blocks add up to a strike, but not in the runner apart, where each is judged alone."""
    strikes = Strikes(1.0)
    assert [strikes.block(1, 0.4, False) for _ in range(4)] == [False, False, True, False]
    assert strikes.block(2, 1.0, False)
    assert [strikes.block(3, 0.9, True) for _ in range(4)] == [False] * 4
    assert strikes.block(3, 1.0, True)
    strikes.keep({})
    assert not strikes.block(1, 0.7, False)


def test_trigger_that_exits_fails_and_its_neighbours_fire(world: World, daemons: Daemons) -> None:
    """D5: os._exit in a trigger or in a task of it fails its own task, with its name."""
    culprit, other, healthy = world.defer(
        [{"cls": "Exits"}, {"cls": "ExitsInTask"}, {"cls": "Healthy"}]
    )
    triggerer = daemons.start("triggerer")
    events = wait_events(world, culprit, other, healthy)
    assert (events[healthy]["kind"], events[healthy]["value"]) == ("fired", "well")
    for number, name, code in ((culprit, "Exits", 9), (other, "ExitsInTask", 8)):
        assert events[number]["kind"] == "failed"
        who = f"trigger {number} ({name} of waits.t{number:07} run r) ended or blocked its runner"
        assert f"{who} 3 times, the last time: the runner exited with code {code}" in str(
            events[number]["error"]
        )
        assert f"{who}, time 1 of 3: the runner exited with code {code}" in triggerer.output


def test_trigger_that_hangs_fails_and_its_neighbours_fire(world: World, daemons: Daemons) -> None:
    """D5, D20: a trigger that blocks every runner until it is killed fails its own task."""
    culprit, healthy = world.defer([{"cls": "Hangs"}, {"cls": "Healthy"}])
    daemons.start("triggerer")
    events = wait_events(world, culprit, healthy)
    assert (events[healthy]["kind"], events[healthy]["value"]) == ("fired", "well")
    assert events[culprit]["kind"] == "failed"
    assert "(Hangs of waits." in str(events[culprit]["error"])
    assert "it was silent for 5 s" in str(events[culprit]["error"])


def test_death_of_an_idle_runner_strikes_nobody(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """Killed from outside as often as it takes to fail a culprit: the trigger still fires."""
    pids, go = tmp_path / "pids", tmp_path / "go"
    (number,) = world.defer([{"cls": "Sleeps", "kwargs": {"pids": str(pids), "go": str(go)}}])
    triggerer = daemons.start("triggerer")
    pids.touch()
    for count in range(1, STRIKES + 1):
        wait_until(lambda: len(pids.read_text().split()) == count, what=f"run {count}")  # noqa: B023
        time.sleep(0.1)  # it sleeps for longer: let its step end, of which nobody is told
        os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)
    go.touch()
    assert wait_events(world, number)[number]["kind"] == "fired"
    assert "ended or blocked" not in triggerer.output


def test_unseen_killers_are_found(world: World, daemons: Daemons) -> None:
    """D5: who exits in a plain callback or a thread is found, and its neighbours fire."""
    killer, other, *healthy = world.defer(
        [{"cls": "ExitsInCallback"}, {"cls": "ExitsInThread"}, *[{"cls": "Healthy"}] * 6]
    )
    daemons.start("triggerer")
    events = wait_events(world, killer, other, *healthy)
    assert {events[number]["kind"] for number in healthy} == {"fired"}
    for number, name in ((killer, "ExitsInCallback"), (other, "ExitsInThread")):
        assert events[number]["kind"] == "failed"
        assert f"trigger {number} ({name} of waits.t" in str(events[number]["error"])


def test_killer_in_an_import_fails_those_who_need_it(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """D5: a DAG file that ends the runner while it is imported fails its triggers, no others."""
    mark = roost_home / "kill"
    code = f"{CODE}\nif os.path.exists({str(mark)!r}):\n    os._exit(5)\n"
    world = World(database_url, roost_home / "dags", code)
    mark.touch()
    bad, worse = world.defer([{"cls": "Healthy"}, {"cls": "Sleeps"}])
    file = {"cls": "FileTrigger", "source": "roost.triggers.file:FileTrigger"}
    (good,) = world.defer([{**file, "kwargs": {"paths": [str(mark)]}}])
    daemons.start("triggerer")
    events = wait_events(world, bad, worse, good)
    kinds = [events[number]["kind"] for number in (bad, worse, good)]
    assert kinds == ["failed", "failed", "fired"]
    assert "exited with code 5, while its code was imported" in str(events[bad]["error"])


def test_second_strike_moves_to_a_runner_apart(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D20: blocks are named in the row and add up; two strikes move a trigger, its peer stays."""
    note, pids, go = tmp_path / "note", tmp_path / "pids", tmp_path / "go"
    blocks, peer = world.defer(
        [
            {"cls": "Pid", "kwargs": {"note": str(note)}},
            {"cls": "Sleeps", "kwargs": {"pids": str(pids), "go": str(go)}},
        ]
    )
    triggerer = daemons.start("triggerer")
    seen = wait_events(world, blocks)[blocks]["value"]
    assert isinstance(seen, list)
    assert len(set(seen)) == 2
    assert pids.read_text().split() == seen[:1]  # its runner went on
    sql = "SELECT strikes, trouble, trouble_at FROM trigger WHERE id = :id"
    (row,) = world.rows(sql, id=blocks)
    assert row["strikes"] == 2
    assert "blocked its runner for" in row["trouble"]
    assert "waits.py:" in row["trouble"]
    assert " in run" in row["trouble"]
    assert row["trouble_at"] is not None
    assert f"(Pid of waits.t{blocks:07} run r) ended or blocked its runner, time 2 of 3" in (
        triggerer.output
    )
    go.touch()
    wait_events(world, peer)


def test_strikes_outlive_the_triggerer(world: World, daemons: Daemons) -> None:
    """D5: strikes are of the trigger, not of a claim: another triggerer goes on counting."""
    third, failed = world.defer(
        [
            {"cls": name, "strikes": count, "trouble": "it exited"}
            for name, count in (("Exits", 2), ("Healthy", 3))
        ]
    )
    triggerer = daemons.start("triggerer")
    events = wait_events(world, third, failed)
    assert "exited with code 9" in str(events[third]["error"])
    assert "time 3 of 3" in triggerer.output
    assert "time 1 of 3" not in triggerer.output
    assert "3 times, the last time: it exited" in str(events[failed]["error"])


def test_third_strike_ends_a_trigger_at_once(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D20: it does not go on in its runner until, or after, the scheduler has taken its event."""
    note = tmp_path / "note"
    numbers = world.defer(
        [{"cls": "Insists", "kwargs": {"note": str(note)}, "strikes": 2, "trouble": "it blocked"}]
        * 5
    )
    note.touch()
    triggerer = daemons.start("triggerer", env={"ROOST__TRIGGERER__STRIKE_AFTER": "0.3"})
    events = wait_events(world, *numbers)
    assert {event["kind"] for event in events.values()} == {"failed"}
    wait_until(
        lambda: sorted(note.read_text().split()) == [str(number) for number in numbers],
        what="all to clean up",
    )
    assert not world.count("strikes <> 3")
    assert "trigger runner" in triggerer.output
    assert "starting another" not in triggerer.output  # nothing was killed for it
