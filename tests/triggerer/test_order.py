"""In which order triggers start: heaviest tasks first, then by age (D16)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine

from roost.dag.loader import module_name
from roost.models.engine import Tx, open_engine, transact
from roost.models.queries import jobs, kills, trigger_specs, triggers
from roost.support.doorbell import Doorbell
from roost.support.processes import me
from roost.triggerer.messages import Source
from roost.triggerer.registry import Registry
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import HASH, World

T = TypeVar("T")
# More than the lanes read at once, and too many for a join that goes by the order asked for.
MANY = 600
CODE = """
import asyncio
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.triggers import PooledTrigger


class Notes(BaseTrigger):
    '''Says in a file that it has started.'''

    def __init__(self, log, name):
        self.log, self.name = log, name

    def serialize(self):
        return ("Notes", {"log": self.log, "name": self.name})

    async def run(self):
        with open(self.log, "a") as file:
            file.write(f"{self.name}\\n")
        await asyncio.sleep(3600)
        yield TriggerEvent()


class Asks(PooledTrigger):
    '''The same, of all that are polled at once.'''

    poll_interval = 3600.0

    def __init__(self, log, name):
        self.log, self.name = log, name

    def serialize(self):
        return ("Asks", {"log": self.log, "name": self.name})

    def poll_key(self):
        return str(self.name)

    @classmethod
    async def poll_many(cls, triggers):
        for trigger in triggers.values():
            with open(trigger.log, "a") as file:
                file.write(f"{trigger.name}\\n")
        return {}
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


@pytest.fixture
def run(database_url: str) -> Iterator[Callable[[Callable[[Tx], T]], T]]:
    engine: Engine = open_engine(database_url)
    yield lambda step: transact(engine, step)
    engine.dispose()


Run = Callable[[Callable[[Tx], Any]], Any]


def scrambled(count: int) -> list[int]:
    """Ranks in no order, each of them several times."""
    assert count % 7 != 0
    return [-(number * 7 % count) // 3 for number in range(count)]


def in_line(numbers: Sequence[int], ranks: Sequence[int]) -> list[int]:
    """These triggers, heaviest first, then oldest first."""
    return [number for _, number in sorted(zip(ranks, numbers, strict=True))]


def defer(world: World, cls: str, log: Path, ranks: Sequence[int]) -> list[int]:
    """Triggers that write their places among these to a file; gives the places in their order."""
    places = list(range(len(ranks)))
    world.defer(
        [
            {"cls": cls, "rank": rank, "kwargs": {"log": str(log), "name": place}}
            for place, rank in zip(places, ranks, strict=True)
        ]
    )
    return in_line(places, ranks)


def wait_started(log: Path, count: int) -> list[int]:
    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    wait_until(lambda: len(lines()) == count, what=f"{count} triggers to start")
    return [int(line) for line in lines()]


def test_triggers_start_by_weight_then_age(
    world: World, daemons: Daemons, roost_home: Path, tmp_path: Path
) -> None:
    """D16: those of a new runner, of one that runs, and of a runner that takes another's place."""
    log = tmp_path / "first"
    line = defer(world, "Notes", log, scrambled(MANY))
    triggerer = daemons.start("triggerer")
    assert wait_started(log, MANY) == line

    later = tmp_path / "later"
    line_later = defer(world, "Notes", later, scrambled(MANY))
    with Doorbell(roost_home / "run") as bell:
        bell.ring("triggerer")
    assert wait_started(later, MANY) == line_later

    log.unlink()
    later.unlink()
    (runner,) = triggerer.family()
    os.kill(runner, signal.SIGKILL)
    assert wait_started(log, MANY) == line
    assert wait_started(later, MANY) == line_later


def test_pooled_triggers_are_asked_about_by_weight_then_age(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """D16: as many as are polled at once, in order."""
    log = tmp_path / "log"
    line = defer(world, "Asks", log, scrambled(MANY))
    daemons.start("triggerer")
    assert wait_started(log, MANY) == line


def test_claims_give_the_order_in_which_they_pick(world: World, run: Run) -> None:
    """D16: what one triggerer claims comes before what the next one does, each in order; so is
    what they hold, and what is read of it."""
    ranks = scrambled(MANY)
    line = in_line(world.defer([{"cls": "Notes", "rank": rank} for rank in ranks]), ranks)
    half = MANY // 2
    for part in (line[:half], line[half:]):
        mine = {"job_id": run(lambda tx: jobs.register(tx, "triggerer", me(), "run"))}
        assert list(run(partial(triggers.claim, batch=half, **mine))) == part
        assert list(run(partial(triggers.held, **mine))) == part
        specs = run(partial(trigger_specs.specs, trigger_ids=part, **mine))
        assert [spec.trigger_id for spec in specs] == part


def test_kills_are_begun_by_age(world: World, run: Run) -> None:
    """D10, D16: users have ended these waits, and the oldest one has waited longest."""
    numbers = world.defer([{"cls": "Notes"}] * MANY)
    run(lambda tx: kills.kill_triggers_of(tx, numbers))
    job_id = run(lambda tx: jobs.register(tx, "triggerer", me(), "run"))
    claimed = run(lambda tx: kills.claim(tx, job_id, MANY // 2, ()))
    assert [kill.spec.trigger_id for kill in claimed] == numbers[: MANY // 2]


def test_who_comes_when_an_import_is_over_does_not_overtake(tmp_path: Path) -> None:
    """D16: those that have waited for it were sent first, and wake some steps later."""
    registry = Registry(str(tmp_path))
    name = f"{module_name(str(tmp_path / 'waits.py'), str(tmp_path))}:Notes"
    registry.add(Source(HASH, "waits.py", CODE, [name], {}))
    started: list[int] = []

    async def start(number: int) -> None:
        case: Any = SimpleNamespace(trigger_id=number, source=name, code_hash=HASH)
        await registry.resolve(case)
        started.append(number)

    async def both() -> None:
        first = asyncio.create_task(start(1))
        await asyncio.sleep(0)
        wait_until(lambda: HASH in registry._loaded, what="the import to be over")
        await asyncio.gather(first, start(2))

    asyncio.run(both())
    assert started == [1, 2]
