"""Calls of ``on_kill()`` that are cut short: by whom, and how often they are made again (D10)."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.engine import open_engine, transact
from roost.models.queries import kills
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

pytestmark = pytest.mark.timeout(240)

CODE = """
import asyncio, os, time
from pathlib import Path
from roost.dag.trigger import BaseTrigger, TriggerEvent


class Job(BaseTrigger):
    '''Something that runs elsewhere; it is told how to end it.'''

    def __init__(self, folder, how):
        self.folder, self.how = Path(folder), how

    def serialize(self):
        return ("Job", {"folder": str(self.folder), "how": self.how})

    async def run(self):
        await asyncio.sleep(3600)
        yield TriggerEvent()

    async def on_kill(self):
        with open(self.folder / "begun", "a") as file:
            file.write("x")
        match self.how:
            case "exits":
                os._exit(3)
            case "exits in a thread":
                await asyncio.to_thread(os._exit, 3)
            case "blocks":
                time.sleep(3600)
        while not (self.folder / "go").exists():
            await asyncio.sleep(0.05)
        (self.folder / "ended").touch()
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


def begin_kill(world: World, folder: Path, how: str) -> int:
    """A user has ended the wait of a task for a job; gives the trigger that was."""
    folder.mkdir(exist_ok=True)
    (number,) = world.defer([{"cls": "Job", "kwargs": {"folder": str(folder), "how": how}}])
    engine = open_engine(world.engine.url.render_as_string(hide_password=False))
    transact(engine, lambda tx: kills.kill_triggers_of(tx, [number]))
    engine.dispose()
    return number


def begun(folder: Path) -> int:
    """How often it was asked to end."""
    path = folder / "begun"
    return path.stat().st_size if path.exists() else 0


def left(world: World, number: int) -> bool:
    return bool(world.rows("SELECT id FROM trigger_kill WHERE id = :id", id=number))


def hurry(world: World) -> None:
    """Let what waits for its next try be due."""
    world.rows("UPDATE trigger_kill SET retry_at = 0")


def test_triggerers_that_are_killed_meanwhile_lose_no_kill_d10(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """Each dies with the call under way, of something else: the host is restarted, say."""
    number = begin_kill(world, tmp_path / "job", "well")
    for attempt in range(1, 6):
        triggerer = daemons.start("triggerer")
        wait_until(lambda: begun(tmp_path / "job") == attempt, 60, f"call {attempt}")  # noqa: B023
        triggerer.kill()
        hurry(world)
    last = daemons.start("triggerer")
    wait_until(lambda: begun(tmp_path / "job") == 6, 60, "the last call")
    (tmp_path / "job" / "go").touch()
    wait_until(lambda: not left(world, number), 60, "the kill to be done")
    assert (tmp_path / "job" / "ended").exists()
    assert "is given up" not in last.output


@pytest.mark.parametrize("how", ["exits", "exits in a thread", "blocks"])
def test_one_that_ends_its_runner_is_given_up_after_three_and_named_d10(
    world: World, daemons: Daemons, tmp_path: Path, how: str
) -> None:
    number = begin_kill(world, tmp_path / "bad", how)
    triggerer = daemons.start("triggerer")
    for strikes in range(1, kills.MOST_STRIKES + 1):
        told = f"on_kill() ended its runner, time {strikes} of {kills.MOST_STRIKES}: the runner"
        wait_until(lambda: told in triggerer.output, 60, told)  # noqa: B023
        hurry(world)
    wait_until(lambda: not left(world, number), 60, "it to be given up")
    wait_until(lambda: "is given up" in triggerer.output, what="that to be said")
    assert f"trigger {number} (Job of " in triggerer.output
    assert begun(tmp_path / "bad") == kills.MOST_STRIKES
    # The triggerer has other things to do, and does them.
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "go").touch()
    other = begin_kill(world, tmp_path / "good", "well")
    wait_until(lambda: not left(world, other), 60, "the kill of another")
    assert (tmp_path / "good" / "ended").exists()


def test_what_is_in_hand_beside_one_that_ends_the_runner_is_not_its_victim_d10(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """It is called again, as often as need be, and nothing is held against it."""
    innocent = begin_kill(world, tmp_path / "good", "well")
    bad = begin_kill(world, tmp_path / "bad", "exits")
    triggerer = daemons.start("triggerer")
    for strikes in range(1, kills.MOST_STRIKES + 1):
        wait_until(lambda: f"time {strikes} of" in triggerer.output, 60, "a strike")  # noqa: B023
        hurry(world)
    wait_until(lambda: not left(world, bad), 60, "it to be given up")
    hurry(world)
    (row,) = world.rows("SELECT strikes FROM trigger_kill WHERE id = :id", id=innocent)
    assert row["strikes"] == 0
    (tmp_path / "good" / "go").touch()
    wait_until(lambda: not left(world, innocent), 60, "the other's call")
    assert (tmp_path / "good" / "ended").exists()
