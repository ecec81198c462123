"""Runners that end or hang by nobody's doing, as real processes: others go on, nobody is struck."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from roost.support.clock import SECOND, now_us
from roost.support.doorbell import Doorbell
from roost.triggerer.pulse import sample
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.test_daemon import CODE, appears, owner, runner_of, wait_events, wait_owned
from tests.triggerer.world import World

pytestmark = pytest.mark.timeout(180)

_CODE = (
    CODE
    + """

class Stands(Appears):
    '''Takes no step while it waits, and fires in the first process that finds its file.'''

    def serialize(self):
        return ("Stands", {"path": self.path, "log": self.log})

    async def run(self):
        self.note("run")
        if not os.path.exists(self.path):
            await asyncio.Event().wait()
        yield TriggerEvent(os.getpid())


class Stops(BaseTrigger):
    def serialize(self):
        return ("Stops", {})

    async def run(self):
        import signal
        os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.sleep(60)
        yield
"""
)

# At its start, while a file is there, a runner notes its pid and ends or hangs.
_AT_START = """
import os, signal, sys, time
if "roost.triggerer.runner" in sys.orig_argv:
    with open({starts!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    if os.path.exists({mark!r}):
        {what}
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", _CODE)


class Starts:
    """Has every runner of a triggerer do something at its start, until told otherwise."""

    def __init__(self, folder: Path, what: str) -> None:
        self._starts, self._mark = folder / "starts", folder / "mark"
        for file in (self._starts, self._mark):
            file.touch()
        text = _AT_START.format(starts=str(self._starts), mark=str(self._mark), what=what)
        (folder / "inject").mkdir()
        (folder / "inject" / "sitecustomize.py").write_text(text)
        self.env = {"PYTHONPATH": str(folder / "inject")}

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self._starts.read_text().split()]

    def let_go(self) -> None:
        self._mark.unlink()


def wait_idle(pid: int) -> None:
    """Until it waits: whoever is stopped now is stopped in nobody's step."""
    wait_until(lambda: (found := sample(pid)) and found.state == "S", what="the runner to wait")


def assert_nobody_struck(world: World, triggerer: Daemon) -> None:
    assert world.count("strikes > 0") == 0
    assert "ended or blocked" not in triggerer.output
    assert "half run apart" not in triggerer.output


def test_stopped_runner_is_replaced_and_nobody_is_struck(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D19, D20: SIGSTOP from outside: another runner has all its triggers, by the same claim."""
    file, log = tmp_path / "file", tmp_path / "log"
    numbers = world.defer([{"cls": "Stands", "kwargs": {"path": str(file), "log": str(log)}}] * 20)
    triggerer = daemons.start("triggerer")
    wait_owned(world, 20, owner(world, triggerer))
    old = runner_of(triggerer)
    wait_until(lambda: log.exists() and log.read_text().count("run") == 20, what="all to run")
    wait_idle(old)
    file.touch()
    os.kill(old, signal.SIGSTOP)
    wait_events(world, *numbers)
    events = world.events().values()
    assert {event["epoch"] for event in events} == {1}
    assert {event["value"] for event in events} == {runner_of(triggerer)}
    assert log.read_text().count("run") == 40
    assert f"runner {old} was killed because it was stopped for 1 s" in triggerer.output
    assert_nobody_struck(world, triggerer)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_trigger_that_stops_its_runner_fails_and_its_neighbours_fire(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D20: it is in its step that the runner was stopped, again and again."""
    stops, *well = world.defer([{"cls": "Stops"}, *[appears(tmp_path / "file")] * 5])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: stops in world.events(), 150, "it to be failed")
    error = world.events()[stops]["error"]
    assert "3 times, the last time: the runner was killed because it was stopped for 1 s" in error
    (tmp_path / "file").touch()
    wait_events(world, *well)
    assert {world.events()[number]["kind"] for number in well} == {"fired"}
    assert world.count("strikes > 0") == 1
    assert f"trigger {stops} (Stops of" in triggerer.output


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_runner_that_hangs_at_its_start_keeps_nobody_waiting(
    world: World, daemons: Daemons, roost_home: Path, tmp_path: Path
) -> None:
    """D19: timers fire although it reads nothing of what it is sent, and then it is replaced."""
    starts = Starts(tmp_path, "time.sleep(3600)")
    (tmp_path / "file").touch()
    long = f"{tmp_path}{'/.' * 500}/file"  # so many of these fill the line
    numbers = world.defer([{"cls": "Appears", "kwargs": {"path": long}}] * 1000)
    triggerer = daemons.start("triggerer", env=starts.env)
    wait_until(lambda: starts.pids, what="a runner to start")
    (timer,) = world.defer([{"due_at": now_us() + 2 * SECOND}])
    with Doorbell(roost_home / "run") as bell:
        bell.ring("triggerer")
    wait_events(world, timer)
    (hung,) = starts.pids
    assert sample(hung) is not None
    starts.let_go()
    wait_until(lambda: len(starts.pids) == 2, what="another runner")
    said = f"runner {hung} was killed because it was silent for 10 s from its start"
    wait_until(lambda: said in triggerer.output, what="the daemon to say so")
    wait_events(world, *numbers)
    assert {event["kind"] for event in world.events().values()} == {"fired"}
    assert_nobody_struck(world, triggerer)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_runners_killed_at_their_start_come_more_slowly(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D19: again and again: the daemon says so and waits longer each time; no trigger is blamed."""
    starts = Starts(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    numbers = world.defer([appears(tmp_path / "file")] * 5)
    triggerer = daemons.start("triggerer", env=starts.env)
    said = "before it was ready; time 5 in a row, starting another in 6 s"
    wait_until(lambda: said in triggerer.output, 60, "five of them to end")
    assert triggerer.output.count("before it was ready") == len(starts.pids) == 5
    starts.let_go()
    (tmp_path / "file").touch()
    wait_events(world, *numbers)
    assert len(starts.pids) == 6
    assert {event["epoch"] for event in world.events().values()} == {1}
    assert_nobody_struck(world, triggerer)
