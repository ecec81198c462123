"""A trigger that leaks memory: its runner is replaced in time, and its own task fails alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.test_daemon import CODE, appears, wait_events
from tests.triggerer.world import World

pytestmark = pytest.mark.timeout(180)

_CODE = (
    CODE
    + """

class Leaks(BaseTrigger):
    kept = []

    def serialize(self):
        return ("Leaks", {})

    async def run(self):
        while True:
            self.kept.append(b"x" * (4 << 20))
            await asyncio.sleep(0.05)
        yield


class Large(BaseTrigger):
    '''Takes a lot at once, less than it may, and keeps it.'''

    def __init__(self, path):
        self.path = path

    def serialize(self):
        return ("Large", {"path": self.path})

    async def run(self):
        much = b"x" * (64 << 20)
        while not os.path.exists(self.path):
            await asyncio.sleep(0.02)
        yield TriggerEvent(len(much))
"""
)


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", _CODE)


@pytest.mark.parametrize(
    ("cls", "kwargs"), [("Leaks", {}), ("Large", {"path": "/nowhere"})], ids=["slowly", "at once"]
)
@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_who_leaks_fails_and_its_neighbours_fire(
    world: World, daemons: Daemons, tmp_path: Path, cls: str, kwargs: dict[str, str]
) -> None:
    """D5: 1 that leaks beside 20 that are well: found by halves, struck three times, failed."""
    file = tmp_path / "file"
    leak, *well = world.defer([{"cls": cls, "kwargs": kwargs}, *[appears(file)] * 20])
    triggerer = daemons.start("triggerer", env={"ROOST__TRIGGERER__RUNNER_MEMORY_MB": "50"})
    wait_until(lambda: leak in world.events(), 120, "the leak to be found")
    event = world.events()[leak]
    assert event["kind"] == "failed"
    assert f"trigger {leak} ({cls} of waits.t{leak:07} run r)" in event["error"]
    assert "more than when it was empty (triggerer.runner_memory_mb = 50)" in event["error"]
    assert world.count("strikes > 0") == 1
    assert set(world.events()) == {leak}
    file.touch()
    wait_events(world, *well)
    assert {world.events()[number]["kind"] for number in well} == {"fired"}
    assert "it is not seen which trigger did that: half run apart now" in triggerer.output


@pytest.mark.parametrize("limit", ["200", "0"])
@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_who_only_needs_much_stays(
    world: World, daemons: Daemons, tmp_path: Path, limit: str
) -> None:
    """What a runner takes when it is empty does not count, and without a limit nothing does."""
    file, log = tmp_path / "file", tmp_path / "log"
    large, well = world.defer([{"cls": "Large", "kwargs": {"path": str(file)}}, appears(file, log)])
    triggerer = daemons.start("triggerer", env={"ROOST__TRIGGERER__RUNNER_MEMORY_MB": limit})
    wait_until(log.exists, what="them to run")
    file.touch()
    wait_events(world, large, well)
    assert world.events()[large]["value"] == 64 << 20
    assert "killed" not in triggerer.output
