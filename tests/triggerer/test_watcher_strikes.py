"""A watcher that ends its runner is put aside: no task could fail for it (D13, D20)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import os
from roost.triggers import BaseEventTrigger, BaseTrigger, TriggerEvent


class Ends(BaseEventTrigger):
    '''Ends its process, and says so.'''

    def __init__(self, log):
        self.log = log

    def serialize(self):
        return ("Ends", {"log": self.log})

    async def run(self):
        with open(self.log, "a") as file:
            file.write("run\\n")
        os._exit(7)
        yield TriggerEvent()


class Healthy(BaseTrigger):
    def serialize(self):
        return ("Healthy", {})

    async def run(self):
        yield TriggerEvent("well")
"""


@pytest.mark.timeout(180)
def test_a_watcher_that_ends_its_runner_is_put_aside(
    database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """D13, D20: after its third strike, also by the triggerer that comes next; others go on."""
    world = World(database_url, roost_home / "dags", CODE)
    log = tmp_path / "log"
    world.watch("Ends", f'{{"log":"{log}"}}')
    first = daemons.start("triggerer")
    wait_until(lambda: world.count("strikes = 3"), timeout=90, what="the third strike")
    wait_until(lambda: "is put aside for" in first.output, what="the word of it")
    assert "of watcher w of asset a" in first.output
    first.kill()
    (healthy,) = world.defer([{"cls": "Healthy", "kwargs": {}}])
    second = daemons.start("triggerer")
    wait_until(lambda: healthy in world.events(), what="the event of another")
    wait_until(lambda: "is put aside for" in second.output, what="the word of the next")
    assert log.read_text() == "run\n" * 3
    assert list(world.events()) == [healthy]
