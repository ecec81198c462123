"""Reports become events in batches, and one that cannot be stored costs only itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest

from roost.models.engine import open_engine, transact
from roost.models.queries import jobs, triggers
from roost.support.processes import me
from roost.support.stats import NullStats
from roost.support.wire import TriggerReport
from roost.triggerer.database import Database
from roost.triggerer.outbox import Outbox
from tests.triggerer.world import World

CODE = """
from roost.dag.trigger import BaseTrigger, TriggerEvent
class Waits(BaseTrigger):
    def serialize(self): return ("Waits", {})
    async def run(self): yield TriggerEvent()
"""


@pytest.mark.parametrize("count", [1, 7, 2500])
def test_unstorable_report_fails_its_own_trigger(
    database_url: str, tmp_path: Path, count: int
) -> None:
    """A payload that the database refuses is stored as that trigger's failure; all others fire."""
    world = World(database_url, tmp_path, CODE)
    numbers = world.defer([{"cls": "Waits"}] * count)
    engine = open_engine(database_url)
    job_id = transact(engine, lambda tx: jobs.register(tx, "triggerer", me(), "run"))
    transact(engine, partial(triggers.claim, job_id=job_id, batch=count))
    poison = numbers[count // 2]
    done: list[TriggerReport] = []
    outbox = Outbox(Database(engine), job_id, NullStats(), lambda batch, _: done.extend(batch))
    # A runner that user code has taken over may send what typed JSON would have refused.
    bad = b'"\x00"' if engine.dialect.name == "postgresql" else b'"\xff"'
    outbox.put(
        [
            TriggerReport(n, 1, "fired", payload=msgspec.Raw(bad if n == poison else b"1"))
            for n in numbers
        ]
    )
    anyio.run(outbox.flush)
    engine.dispose()
    events = world.events()
    assert {n for n in numbers if events[n]["kind"] == "failed"} == {poison}
    assert "cannot be stored" in events[poison]["error"]
    assert [report.trigger_id for report in done] == numbers
