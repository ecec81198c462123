"""Pooled triggers in a real runner and a real triggerer."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.models.engine import open_engine, transact
from roost.models.queries.connections import add_connection
from roost.support import typedjson
from roost.support.crypto import Keyring
from roost.support.task_requests import ConnectionRecord
from roost.triggerer.messages import Ask, Beat, Cancel
from roost.triggers import HttpTrigger, SqlTrigger
from tests.operators.test_http import Server
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.runner_process import RunnerProcess
from tests.triggerer.world import World

CODE = '''
import asyncio, os, time
from pathlib import Path
from typing import Any
from roost.triggers import BaseTrigger, PooledTrigger, TriggerEvent


class Jobs(PooledTrigger):
    """Waits until its job is a line of a file; notes each poll in another."""

    poll_interval = 0.1

    def __init__(self, job, folder):
        self.job, self.folder = job, folder

    def serialize(self):
        return ("Jobs", {"job": self.job, "folder": self.folder})

    def poll_key(self):
        return self.job

    def poll_group(self):
        return self.folder

    @classmethod
    async def poll_many(cls, triggers):
        (folder,) = {trigger.folder for trigger in triggers.values()}
        with open(Path(folder, "polls"), "a") as file:
            file.write(f"{len(triggers)}\\n")
        done = Path(folder, "done")
        ended = done.read_text().split() if done.exists() else []
        return {job: TriggerEvent({"job": job}) for job in ended if job in triggers}


class Blocks(Jobs):
    @classmethod
    async def poll_many(cls, triggers):
        time.sleep(0.6)
        return {job: TriggerEvent() for job in triggers}


class Exits(Jobs):
    @classmethod
    async def poll_many(cls, triggers):
        os._exit(7)


class Asks(Jobs):
    @classmethod
    async def poll_many(cls, triggers):
        first = next(iter(triggers.values()))
        await first.get_connection("x")
        return {}


class BadKey(Jobs):
    def poll_key(self):
        raise ValueError("no key today")


class NotAsync(Jobs):
    @classmethod
    def poll_many(cls, triggers):
        return {}


class Healthy(BaseTrigger):
    def serialize(self):
        return ("Healthy", {})

    async def run(self):
        await asyncio.sleep(0.3)
        yield TriggerEvent("healthy")
'''


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, CODE)
    yield process
    process.close()


def polls(folder: Path) -> list[int]:
    """How many triggers each poll was about, so far."""
    path = folder / "polls"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def start_jobs(runner: RunnerProcess, folder: Path, count: int) -> None:
    for number in range(1, count + 1):
        runner.start(number, "Jobs", job=f"j{number}", folder=str(folder))


def test_a_thousand_triggers_cost_the_endpoint_one_request(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """1,000 that wait for one endpoint: one request about all of them, again and again."""
    start_jobs(runner, tmp_path, 1_000)
    runner.read_until(lambda: polls(tmp_path)[-3:] == [1_000] * 3)
    assert len([size for size in polls(tmp_path) if size < 1_000]) < 100  # of those who came late
    (tmp_path / "done").write_text("j7 j1000")
    reports = runner.wait_reports(7, 1000)
    assert typedjson.decode(reports[7].payload) == {"job": "j7"}
    runner.send(Cancel(list(range(1, 500))))
    runner.read_until(lambda: polls(tmp_path)[-1] == 500)
    assert len(runner.reports) == 2
    beats = [message for message in runner.messages if isinstance(message, Beat)]
    runner.read_until(lambda: isinstance(runner.messages[-1], Beat))
    assert sum(beat.polls for beat in beats) <= len(polls(tmp_path))
    assert runner.messages[-1].running == 500  # type: ignore[union-attr]


def test_a_poll_that_blocks_is_named_as_one_of_its_triggers(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D20: the watchdog tells which class and line, and a trigger of the group."""
    runner.start(5, "Blocks", job="a", folder=str(tmp_path))
    runner.start(6, "Blocks", job="b", folder=str(tmp_path))
    runner.wait_reports(5, 6)
    (note,) = runner.blocked
    assert note.trigger_id in (5, 6)
    assert note.label.startswith("waits.t")
    assert "waits.py" in note.where
    assert note.where.endswith("in poll_many")


def test_a_poll_that_ends_the_runner_is_found_in_the_slot(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D5: whose poll it was stands in the memory that outlives the runner."""
    runner.start(9, "Exits", job="a", folder=str(tmp_path))
    assert runner.process.wait(30) == 7
    assert runner.culprit() == 9


def test_what_is_wrong_with_a_class_is_told(runner: RunnerProcess, tmp_path: Path) -> None:
    """D5: with a traceback of the user's code where there is any; nobody else is harmed."""
    for number, cls in enumerate(("BadKey", "NotAsync", "Healthy"), 1):
        kwargs: dict[str, Any] = {} if cls == "Healthy" else {"job": "a", "folder": str(tmp_path)}
        runner.start(number, cls, **kwargs)
    reports = runner.wait_reports(1, 2, 3)
    assert "ValueError: no key today" in (reports[1].error or "")
    assert "NotAsync.poll_many() must be `async def`" in (reports[2].error or "")
    assert typedjson.decode(reports[3].payload) == "healthy"


def test_a_poll_may_ask_for_a_connection(runner: RunnerProcess, tmp_path: Path) -> None:
    runner.start(4, "Asks", job="a", folder=str(tmp_path))
    runner.read_until(lambda: any(isinstance(message, Ask) for message in runner.messages))
    (ask,) = [message for message in runner.messages if isinstance(message, Ask)]
    assert ask.trigger_id == 4


def test_pooled_triggers_under_a_triggerer(
    database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """A cleared one is dropped, a new runner polls them all again, each event is stored once."""
    world = World(database_url, roost_home / "dags", CODE)
    kwargs = [{"job": f"j{number}", "folder": str(tmp_path)} for number in range(20)]
    ids = world.defer([{"cls": "Jobs", "kwargs": one} for one in kwargs])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: polls(tmp_path)[-1:] == [20], what="a poll about 20")
    world.settle(ids[:5])
    os.kill(next(iter(triggerer.family())), 9)
    wait_until(lambda: polls(tmp_path)[-1:] == [15], what="a poll about 15")
    (tmp_path / "done").write_text(" ".join(f"j{number}" for number in range(20)))
    wait_until(lambda: len(world.events()) == 15, what="15 events")
    assert {event["kind"] for event in world.events().values()} == {"fired"}
    assert set(world.events()) == set(ids[5:])


def test_a_poll_that_ends_the_runner_strikes_all_it_was_about(
    database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """D5: else each of a thousand would have to end it three times before it fails."""
    world = World(database_url, roost_home / "dags", CODE)
    kwargs = [{"job": f"j{number}", "folder": str(tmp_path)} for number in range(20)]
    bad = world.defer([{"cls": "Exits", "kwargs": one} for one in kwargs])
    (healthy,) = world.defer([{"cls": "Healthy"}])
    triggerer = daemons.start("triggerer")
    struck = [f"trigger {number} (Exits of waits." for number in bad]
    wait_until(lambda: all(f"{who}" in triggerer.output for who in struck), what="a strike of each")
    wait_until(lambda: healthy in world.events(), what="the healthy one's event")
    assert "time 2 of 3" not in triggerer.output
    world.settle(bad)


def test_http_and_sql_sensors_wait_in_the_triggerer(
    database_url: str, roost_home: Path, daemons: Daemons, tmp_path: Path
) -> None:
    """The triggers get their Connections from the database; what these hold is not in the log."""
    world = World(database_url, roost_home / "dags", CODE)
    server = Server("HTTP/1.1")
    keys = Keyring(file=roost_home / "encryption.key")
    api = ConnectionRecord("api", "http", "127.0.0.1", "me", "s3cret-pw", port=server.port)
    path = str(tmp_path / "w.db")
    engine = open_engine(database_url)
    for record in (api, ConnectionRecord("db", "sqlite", path)):
        transact(engine, lambda tx, one=record: add_connection(tx, one, keys))  # type: ignore[misc]
    engine.dispose()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE load (state text)")
    server.answer = lambda _server, _path: (200, '{"state": "running"}')
    http = HttpTrigger("x", "api", json_path="state", success_values=["done"], poll_interval=0.1)
    bad = HttpTrigger("x", "nowhere")
    sql = SqlTrigger("db", "SELECT state FROM load", poll_interval=0.1)
    kinds = [("http:HttpTrigger", http), ("http:HttpTrigger", bad), ("sql:SqlTrigger", sql)]
    first, missing, second = world.defer(
        [
            {"cls": cls, "source": f"roost.triggers.{cls}", "kwargs": made.serialize()[1]}
            for cls, made in kinds
        ]
    )
    try:
        triggerer = daemons.start("triggerer")
        wait_until(lambda: len(server.seen) >= 3, what="some polls")
        server.answer = lambda _server, _path: (200, '{"state": "done"}')
        with sqlite3.connect(path) as db:
            db.execute("INSERT INTO load VALUES ('loaded')")
        db.close()
        wait_until(lambda: len(world.events()) == 3, what="three events")
    finally:
        server.close()
    events = world.events()
    assert events[first]["value"] == {"status": 200, "found": "done", "judgement": "success"}
    assert events[second]["value"] == {"found": "loaded", "judgement": "success"}
    assert "The conn_id `nowhere` isn't defined" in events[missing]["error"]
    assert server.seen[0]["headers"]["authorization"].startswith("Basic ")
    assert "s3cret-pw" not in triggerer.output
