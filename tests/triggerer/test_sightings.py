"""What watchers saw becomes events in batches; what cannot be stored costs only itself (D13)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
import pytest

from roost.models.engine import open_engine, transact
from roost.models.queries import jobs, triggers
from roost.support.processes import me
from roost.support.stats import NullStats
from roost.triggerer.database import Database
from roost.triggerer.keeper import Keeper
from roost.triggerer.messages import Kept, Sighting
from roost.triggerer.sightings import Sightings
from tests.triggerer.world import World

CODE = """
from roost.triggers import BaseEventTrigger, TriggerEvent
class Sees(BaseEventTrigger):
    def serialize(self): return ("Sees", {})
    async def run(self): yield TriggerEvent()
"""


class Receiver:
    """A keeper whose runner takes receipts."""

    def __init__(self) -> None:
        self.receipts: list[tuple[int, int, int, bool]] = []

    async def send(self, message: Any) -> None:
        assert isinstance(message, Kept)
        self.receipts += message.receipts


@pytest.mark.parametrize("count", [1, 7, 1200])
def test_what_cannot_be_stored_is_refused_alone(
    database_url: str, tmp_path: Path, count: int
) -> None:
    """D13: the others are there, in their order, and each has its receipt."""
    world = World(database_url, tmp_path, CODE)
    number = world.watch("Sees")
    engine = open_engine(database_url)
    job_id = transact(engine, lambda tx: jobs.register(tx, "triggerer", me(), "run"))
    ((claimed, epoch),) = transact(engine, partial(triggers.claim, job_id=job_id, batch=1)).items()
    assert claimed == number
    rings: list[None] = []
    receiver = Receiver()
    sightings = Sightings(
        Database(engine), job_id, NullStats(), [cast(Keeper, receiver)], lambda: rings.append(None)
    )
    # A runner that user code has taken over may send what is no text.
    bad = count // 2
    sightings.put(
        Sighting(number, epoch, one, msgspec.Raw(b'{"n":"\xff"}' if one == bad else b"{}"))
        for one in range(count)
    )
    anyio.run(sightings.flush)
    engine.dispose()
    assert receiver.receipts == [(number, epoch, one, one != bad) for one in range(count)]
    rows = world.rows("SELECT ref FROM asset_event ORDER BY id")
    assert [row["ref"] for row in rows] == [
        f"{number}.{epoch}.{one}" for one in range(count) if one != bad
    ]
    assert bool(rings) is (count > 1)
