"""Reports become events in batches, and one that cannot be stored costs only itself."""

from __future__ import annotations

import re
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
from roost.support.trigger_wire import TriggerReport
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


def test_the_log_names_the_task_of_a_trigger_that_failed(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D5: its row is gone when somebody reads the log, so its id would tell nothing."""
    world = World(database_url, tmp_path, CODE)
    numbers = world.defer([{"cls": "Waits"}] * 2)
    engine = open_engine(database_url)
    job_id = transact(engine, lambda tx: jobs.register(tx, "triggerer", me(), "run"))
    transact(engine, partial(triggers.claim, job_id=job_id, batch=2))
    outbox = Outbox(Database(engine), job_id, NullStats(), lambda *_: None)
    outbox.put([TriggerReport(numbers[0], 1, "fired")])
    outbox.put([TriggerReport(numbers[1], 1, "failed", error="Traceback:\nValueError: no")])
    anyio.run(outbox.flush)
    (label,) = transact(engine, partial(triggers.labels, trigger_ids=numbers[1:])).values()
    engine.dispose()
    assert [one.getMessage() for one in caplog.records if "failed" in one.getMessage()] == [
        f"trigger {numbers[1]} ({label.text}) failed: ValueError: no"
    ]
    assert re.fullmatch(r"\w+\.\w+ run \w+", label.text)


class Slow:
    """A database that takes a batch when it is let."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.asked = anyio.Semaphore(0)
        self.may = anyio.Semaphore(0)

    async def until_done(self, step: Any) -> list[int]:
        self.asked.release()
        await self.may.acquire()
        fresh = [one.trigger_id for one in step.keywords["reports"]]
        fresh = [number for number in fresh if number not in self.taken]
        self.taken += fresh
        return fresh


def test_a_last_flush_beside_another_loses_nothing_and_tells_nothing_twice() -> None:
    """S3: at a stop one batch may be on its way; each report is stored and told of once."""
    told: list[tuple[int, bool]] = []

    def on_stored(batch: list[TriggerReport], stored: set[int]) -> None:
        told.extend((one.trigger_id, one.trigger_id in stored) for one in batch)

    async def stop() -> None:
        database = Slow()
        outbox = Outbox(cast(Database, database), 1, NullStats(), on_stored)
        outbox.put([TriggerReport(1, 1, "fired")])
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.run)
            await database.asked.acquire()
            outbox.put([TriggerReport(2, 1, "fired")])
            group.start_soon(outbox.flush)
            await anyio.wait_all_tasks_blocked()
            outbox.put([TriggerReport(3, 1, "fired")])
            for _ in range(5):
                database.may.release()
                await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert sorted(database.taken) == [1, 2, 3]

    anyio.run(stop)
    assert told == [(1, True), (2, True), (3, True)]
