"""``triggers.blocked.DAG.TASK``: the metric that names the culprit, as a statsd server gets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support.clock import now_us
from roost.triggerer.messages import Blocked
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.statsd import Statsd
from tests.triggerer.world import HASH, World

CODE = """
import asyncio, time
from roost.triggers import BaseEventTrigger, BaseTrigger, TriggerEvent


class Blocks(BaseTrigger):
    def __init__(self, times):
        self.times = times

    def serialize(self):
        return ("Blocks", {"times": self.times})

    async def run(self):
        for _ in range(self.times):
            await asyncio.sleep(0.1)
            time.sleep(0.4)
        yield TriggerEvent("late")


class Watches(BaseEventTrigger):
    def serialize(self):
        return ("Watches", {})

    async def run(self):
        time.sleep(0.4)
        await asyncio.sleep(3600)
        yield
"""


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    server = Statsd()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("trigger_id", "label", "who"),
    [
        (38, "d.t run r", "trigger 38 (d.t run r)"),
        (38, "", "trigger 38 (which has ended since)"),
        (None, "", "unknown code"),
        (None, "a callback", "unknown code (a callback)"),
    ],
)
def test_who_blocks_is_never_named_by_empty_brackets(
    trigger_id: int | None, label: str, who: str
) -> None:
    """D20: a trigger that has just ended has no row any more to take its name from."""
    assert Blocked(trigger_id, label, "a.py:1 in f", 1).who == who


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_blocks_are_counted_by_the_task_whose_trigger_it_was(
    database_url: str, roost_home: Path, daemons: Daemons, statsd: Statsd
) -> None:
    """D20, N10: once each; those of a watcher, which has no task, by its name."""
    world = World(database_url, roost_home / "dags", CODE)
    once, twice = world.defer([{"cls": "Blocks", "kwargs": {"times": times}} for times in (1, 2)])
    world.rows(
        "INSERT INTO asset_watcher (dag_id, uri, name, hash, classpath, source, kwargs, code_hash, "
        "fileloc, queue) VALUES ('waits', 'a', 'w', 'h', 'Watches', :source, '{}', :code, "
        "'waits.py', 'default')",
        source=f"{world.module}:Watches", code=HASH,
    )  # fmt: skip
    world.rows(
        "INSERT INTO trigger (id, lane, classpath, source, kwargs, next_kwargs, code_hash, "
        "fileloc, queue, created_at, watcher_hash) VALUES (1000, 'poll', 'Watches', :source, '{}', "
        "'{}', :code, 'waits.py', 'default', :now, 'h')",
        source=f"{world.module}:Watches", code=HASH, now=now_us(),
    )  # fmt: skip
    env = {
        "ROOST__STATSD__ENABLED": "true",
        "ROOST__STATSD__HOST": "127.0.0.1",
        "ROOST__STATSD__PORT": str(statsd.port),
    }
    triggerer = daemons.start("triggerer", env=env)
    wanted = {
        f"blocked.waits.t{once:07}": 1,
        f"blocked.waits.t{twice:07}": 2,
        "blocked._watchers.watcher_w_of_asset_a": 1,
        "blocked_main_thread": 4,
    }
    wait_until(lambda: {once, twice} <= set(world.events()), what="both to fire")
    wait_until(lambda: sum(statsd.counts().values()) >= 8, what="eight counted")
    triggerer.stop()
    assert statsd.counts() == wanted
