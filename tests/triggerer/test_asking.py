"""What triggers ask their supervisor: Connections, Variables, XComs (H26, S48, D8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from roost.models import tables
from roost.models.engine import open_engine, transact
from roost.models.queries import connections, variables
from roost.support import typedjson
from roost.support.clock import now_us
from roost.support.crypto import Keyring
from roost.support.task_requests import (
    ConnectionGet,
    ConnectionRecord,
    Reply,
    VariableGet,
    XComPull,
)
from roost.triggerer.asking import PER_TRIGGER, UNDER_WAY
from roost.triggerer.messages import Answer, Ask, Cancel, Words
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.runner_process import RunnerProcess
from tests.triggerer.world import World

CODE = '''
import asyncio, os
from roost.dag import Connection, Variable
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.hooks import BaseHook

COLOUR = Variable.get("colour", default_var="none at import")


class Named(BaseTrigger):
    def serialize(self):
        return (type(self).__name__, {})


class Reads(Named):
    """Reads all there is, in every way there is."""

    async def run(self):
        warehouse = await self.get_connection("warehouse")
        same = await asyncio.to_thread(BaseHook.get_connection, "warehouse")
        yield TriggerEvent({
            "login": warehouse.login, "same": same.login, "port": warehouse.port,
            "region": await self.get_variable("region"),
            "missing": await Variable.get_async("missing", None),
            "thread": await asyncio.to_thread(Variable.get, "region"),
            "one": await self.xcom_pull("first"),
            "two": await self.xcom_pull(["second", "first"], key="k"),
            "import": COLOUR,
        })


class Blocks(Named):
    async def run(self):
        Connection.get("warehouse")
        yield TriggerEvent()


class Missing(Named):
    async def run(self):
        await Connection.get_async("nowhere")
        yield TriggerEvent()


class Tells(Named):
    async def run(self):
        connection = await self.get_connection("warehouse")
        print("printed", connection.password)
        raise ValueError(f"no way in with {connection.password}")
        yield TriggerEvent()


class Greedy(Named):
    def __init__(self, count):
        self.count = count

    async def run(self):
        asks = [Variable.get_async(f"v{number}", None) for number in range(self.count)]
        yield TriggerEvent(await asyncio.gather(*asks))


class Sets(Named):
    async def run(self):
        await asyncio.to_thread(Variable.set, "a", "b")
        yield TriggerEvent()


class PullsMuch(Named):
    async def run(self):
        yield TriggerEvent(len(await self.xcom_pull(["first"] * 70, key="large")))


class Large(BaseTrigger):
    def __init__(self, text):
        self.text = text

    def serialize(self):
        return ("Large", {"text": self.text})

    async def run(self):
        yield TriggerEvent(len(self.text))


class FromThread(Named):
    """Its thread is still waiting for an answer when the trigger ends."""

    def __init__(self, note):
        self.note = note

    async def run(self):
        await asyncio.to_thread(self.ask)
        yield TriggerEvent()

    def ask(self):
        try:
            Variable.get("never")
        except Exception as error:
            with open(self.note, "a") as file:
                file.write(str(error))
            raise
'''

WAREHOUSE = ConnectionRecord("warehouse", "postgres", "db", "reader", "s3cret-pw", port=5433)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, CODE)
    yield process
    process.close()


def asks(runner: RunnerProcess, count: int = 1) -> list[Ask]:
    """The requests so far, as soon as there are ``count``."""

    def found() -> list[Ask]:
        return [message for message in runner.messages if isinstance(message, Ask)]

    runner.read_until(lambda: len(found()) >= count)
    return found()


def test_a_trigger_awaits_its_answer(runner: RunnerProcess) -> None:
    """A request goes to the supervisor with the trigger's id, the answer comes back to it."""
    runner.start(7, "Reads")
    (ask,) = asks(runner)
    assert (ask.trigger_id, ask.request) == (7, ConnectionGet("warehouse"))
    runner.send(Answer(ask.number, Reply(connection=WAREHOUSE)))
    ask = asks(runner, 2)[-1]
    assert ask.request == ConnectionGet("warehouse")  # by a thread, with the sync API
    assert ask.trigger_id == 7
    runner.send(Answer(ask.number, Reply(connection=WAREHOUSE)))
    replies = {"region": "north", "missing": None}
    for number in (3, 4, 5):
        ask = asks(runner, number)[-1]
        assert isinstance(ask.request, VariableGet)
        runner.send(Answer(ask.number, Reply(text=replies[ask.request.key])))
    ask = asks(runner, 6)[-1]
    assert ask.request == XComPull(["first"])
    runner.send(Answer(ask.number, Reply(values=[msgspec.Raw(b"[1,2]")])))
    ask = asks(runner, 7)[-1]
    assert ask.request == XComPull(["second", "first"], "k")
    runner.send(Answer(ask.number, Reply(values=[msgspec.Raw(b"null"), msgspec.Raw(b'"x"')])))
    assert typedjson.decode(runner.wait_reports(7)[7].payload) == {
        "login": "reader", "same": "reader", "port": 5433, "region": "north", "missing": None,
        "thread": "north", "one": [1, 2], "two": [None, "x"], "import": "none at import",
    }  # fmt: skip


def test_a_call_that_would_block_the_loop_is_refused(runner: RunnerProcess) -> None:
    """The sync API on the loop's thread is one clear line, not a deadlock of all triggers."""
    runner.start(1, "Blocks")
    error = runner.wait_reports(1)[1].error or ""
    assert "Traceback" not in error
    assert "would block every trigger: `await` the async form" in error
    assert not asks(runner, 0)


def test_the_environment_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S48: a Connection of the environment is used, and the supervisor is not asked."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://env-reader@db:5433/x")
    monkeypatch.setenv("ROOST_VAR_REGION", "south")
    runner = RunnerProcess(tmp_path, CODE)
    try:
        runner.start(1, "Reads")
        (ask,) = asks(runner)
        assert ask.request == VariableGet("missing")
        runner.send(Answer(ask.number, Reply()))
        for number in (2, 3):
            values = [msgspec.Raw(b"1")] * (number - 1)
            runner.send(Answer(asks(runner, number)[-1].number, Reply(values=values)))
        value = typedjson.decode(runner.wait_reports(1)[1].payload)
        assert isinstance(value, dict)
        assert (value["login"], value["same"], value["region"]) == ("env-reader",) * 2 + ("south",)
    finally:
        runner.close()


def test_errors_name_what_was_asked(runner: RunnerProcess) -> None:
    """S49: a Connection that is not there, and a supervisor's error, fail that trigger."""
    for number, reply in enumerate((Reply(), Reply(error="no key decrypts it")), 1):
        runner.start(number, "Missing")
        runner.send(Answer(asks(runner, number)[-1].number, reply))
    runner.start(3, "Sets")
    reports = runner.wait_reports(1, 2, 3)
    assert "The conn_id `nowhere` isn't defined" in (reports[1].error or "")
    assert "Connection 'nowhere': no key decrypts it" in (reports[2].error or "")
    assert "may only read" in (reports[3].error or "")


def test_what_a_runner_was_given_is_masked(runner: RunnerProcess) -> None:
    """Invariant S19: a password shows neither in what a trigger prints nor in its error."""
    runner.start(1, "Tells")
    runner.send(Answer(asks(runner)[-1].number, Reply(connection=WAREHOUSE)))
    error = runner.wait_reports(1)[1].error or ""
    assert "no way in with ***" in error
    assert "s3cret" not in error
    words = [one.said for one in runner.messages if isinstance(one, Words)]
    text = "".join(said.text for batch in words for said in batch)
    assert "printed ***" in text  # said before the report
    assert "s3cret" not in text
    assert "s3cret" not in runner.output


def test_requests_are_bounded(runner: RunnerProcess) -> None:
    """So many are under way at once; one trigger may have only so many besides."""
    runner.start(1, "Greedy", count=PER_TRIGGER)
    first = asks(runner, UNDER_WAY)
    runner.start(2, "Greedy", count=PER_TRIGGER + 1)
    assert f"waits for {PER_TRIGGER} answers already" in (runner.wait_reports(2)[2].error or "")
    assert len(asks(runner, 0)) == UNDER_WAY  # the others wait for their turn
    for number in range(PER_TRIGGER):
        ask = asks(runner, number + 1)[number]
        runner.send(Answer(ask.number, Reply(text=str(ask.trigger_id))))
    runner.wait_reports(1)
    assert typedjson.decode(runner.reports[1].payload) == ["1"] * PER_TRIGGER
    assert len(first) == UNDER_WAY
    # Of the trigger that has ended nothing is asked any more, but for what was under way.
    assert sum(ask.trigger_id == 2 for ask in asks(runner, 0)) == 0


def test_a_request_of_a_trigger_that_has_ended_is_dropped(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """Its thread is told; the answer that comes later finds nobody, and harms nobody."""
    note = tmp_path / "note"
    runner.start(1, "FromThread", note=str(note))
    under_way = asks(runner)
    runner.send(Cancel([1]))
    runner.wait_written(note, "its trigger has ended")
    for ask in under_way:
        runner.send(Answer(ask.number, Reply(text="late")))
    runner.start(2, "Greedy", count=1)
    ask = asks(runner, 2)[-1]
    runner.send(Answer(ask.number, Reply(text="v")))
    assert typedjson.decode(runner.wait_reports(2)[2].payload) == ["v"]


def _push(url: str, values: dict[str, object]) -> None:
    """What the task `first` of the world's run has left."""
    engine = sa.create_engine(url)
    with engine.begin() as db:
        ti = tables.task_instance
        run = db.execute(sa.select(tables.dag_run.c.id)).scalar_one()
        db.execute(ti.insert().values(id=1000, dag_run_id=run, task_id="first", state="success"))
        for key, value in values.items():
            text = typedjson.encode(value).decode()
            row = {"ti_id": 1000, "key": key, "value": text, "created_at": now_us()}
            db.execute(tables.xcom.insert().values(row))
    engine.dispose()


def test_the_triggerer_answers_from_the_database(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """H26: with the keyring of its configuration, for the run of the trigger that asks."""
    world = World(database_url, roost_home / "dags", CODE)
    key_file = roost_home / "encryption.key"
    keys = Keyring(file=key_file)
    engine = open_engine(database_url)
    transact(engine, lambda tx: connections.add_connection(tx, WAREHOUSE, keys))
    transact(engine, lambda tx: variables.set_variable(tx, "region", "north", keys))
    engine.dispose()
    _push(database_url, {"return_value": {"rows": 3}, "k": "x"})
    reads, missing, tells = world.defer([{"cls": "Reads"}, {"cls": "Missing"}, {"cls": "Tells"}])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: len(world.events()) == 3, what="three events")
    events = world.events()
    assert events[reads]["value"] == {
        "login": "reader", "same": "reader", "port": 5433, "region": "north", "missing": None,
        "thread": "north", "one": {"rows": 3}, "two": [None, "x"], "import": "none at import",
    }, events[reads]  # fmt: skip
    assert "isn't defined" in events[missing]["error"]
    assert "***" in events[tells]["error"]
    assert "s3cret-pw" not in events[tells]["error"] + triggerer.output


def test_what_fits_into_no_message_hurts_nobody(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """D5: too many XComs at once fail who asks for them; arguments of many come in pieces."""
    world = World(database_url, roost_home / "dags", CODE)
    _push(database_url, {"large": "x" * 1_000_000})
    large = world.defer([{"cls": "Large", "kwargs": {"text": "x" * 1_000_000}}] * 70)
    (pulls,) = world.defer([{"cls": "PullsMuch"}])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: len(world.events()) == 71, timeout=90, what="events of all")
    events = world.events()
    assert {events[number]["value"] for number in large} == {1_000_000}
    assert "pull fewer XComs at once" in events[pulls]["error"]
    assert triggerer.process.poll() is None
