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
from roost.triggerer.messages import SLOT_BYTES
from roost.triggerer.steps import Steps, started_by, task_factory
from roost.triggerer.strikes import HOLD_S, STRIKES, Strikes
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import asyncio, os, time
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
    os.ftruncate(fd, SLOT_BYTES)
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


def test_strikes_hold_back_and_then_for_good() -> None:
    """Each strike holds back for longer, the last for ever; another claim begins anew."""
    strikes = Strikes()
    assert strikes.next_s(0) == float("inf")
    assert strikes.add(1, 5, 100) == 1
    assert strikes.next_s(101) == HOLD_S - 1
    assert strikes.held_back(101) == 1
    assert strikes.holds(1, 5, 100)
    assert not strikes.holds(1, 6, 100)
    assert not strikes.holds(2, 5, 100)
    assert not strikes.holds(1, 5, 100 + HOLD_S)
    assert strikes.add(1, 5, 200) == 2
    assert strikes.holds(1, 5, 200 + HOLD_S)
    assert strikes.add(1, 5, 300) == STRIKES
    assert strikes.holds(1, 5, 1e9)
    assert (strikes.held_back(300), strikes.next_s(300)) == (0, float("inf"))
    assert strikes.add(1, 6, 400) == 1
    strikes.keep({2: 1})
    assert strikes.add(1, 6, 500) == 1


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
        assert f"{who} 3 times, the last one exited with code {code}" in str(
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
