"""on_stored(): a trigger gives up what it took only when its event is in the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.triggerer.messages import Cancel, Stored
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.runner_process import RunnerProcess
from tests.triggerer.world import World

CODE = """
import asyncio
from roost.dag.trigger import BaseTrigger, TriggerEvent


class Takes(BaseTrigger):
    '''Says in a file what is done with the message that it took.'''

    def __init__(self, log, payload="message", fails=False):
        self.log, self.payload, self.fails = log, payload, fails

    def serialize(self):
        return ("Takes", {"log": self.log, "payload": self.payload, "fails": self.fails})

    def note(self, text):
        with open(self.log, "a") as file:
            file.write(f"{text}\\n")

    async def run(self):
        try:
            yield TriggerEvent(self.payload)
        finally:
            self.note("closed")

    async def on_stored(self):
        self.note("stored")
        if self.fails:
            raise ValueError("broker gone")

    async def cleanup(self):
        self.note("cleanup")


class Plain(Takes):
    on_stored = BaseTrigger.on_stored
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, CODE)
    yield process
    process.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_it_is_told_of_the_receipt_where_it_yielded(runner: RunnerProcess, log: Path) -> None:
    runner.start(1, "Takes", log=str(log))
    assert runner.wait_reports(1)[1].waits
    assert not log.exists()
    runner.send(Stored([(1, 2, True), (7, 1, True)]))  # another epoch, and nobody
    runner.send(Stored([(1, 1, True)]))
    runner.wait_written(log, "stored\nclosed\ncleanup\n")


def test_a_refused_event_is_not_acknowledged(runner: RunnerProcess, log: Path) -> None:
    runner.start(1, "Takes", log=str(log))
    runner.wait_reports(1)
    runner.send(Stored([(1, 1, False)]))
    runner.wait_written(log, "cleanup")
    assert log.read_text() == "closed\ncleanup\n"


def test_nor_is_that_of_a_cancelled_trigger(runner: RunnerProcess, log: Path) -> None:
    runner.start(1, "Takes", log=str(log))
    runner.wait_reports(1)
    runner.send(Cancel([1]))
    runner.wait_written(log, "closed\ncleanup\n")
    assert set(runner.reports) == {1}


def test_nor_when_the_supervisor_is_gone(runner: RunnerProcess, log: Path) -> None:
    """The event may be lost with it: another triggerer takes the message again."""
    runner.start(1, "Takes", log=str(log))
    runner.wait_reports(1)
    runner.hang_up()
    runner.process.wait(30)
    assert log.read_text() == "closed\ncleanup\n"


def test_others_are_not_kept(runner: RunnerProcess, log: Path) -> None:
    runner.start(1, "Plain", log=str(log))
    assert not runner.wait_reports(1)[1].waits
    runner.wait_written(log, "closed\ncleanup\n")


def test_what_on_stored_raises_is_logged_only(runner: RunnerProcess, log: Path) -> None:
    runner.start(1, "Takes", log=str(log), fails=True)
    runner.wait_reports(1)
    runner.send(Stored([(1, 1, True)]))
    runner.wait_written(log, "cleanup")
    assert "on_stored() of trigger 1 (waits.t1 run r1) did not end well: ValueError" in (
        runner.output
    )
    assert set(runner.reports) == {1}


def test_the_daemon_sends_receipts_for_what_is_in_the_database(
    database_url: str, roost_home: Path, daemons: Daemons, log: Path
) -> None:
    """D14: neither before the event is there, nor for one that the database cannot take."""
    world = World(database_url, roost_home / "dags", CODE)
    (good,) = world.defer([{"cls": "Takes", "kwargs": {"log": str(log)}}])
    daemons.start("triggerer")
    wait_until(lambda: log.exists() and "cleanup" in log.read_text(), what="the acknowledgement")
    assert log.read_text() == "stored\nclosed\ncleanup\n"
    assert world.events()[good]["value"] == "message"


def test_an_event_that_comes_too_late_is_not_acknowledged(
    database_url: str, roost_home: Path, daemons: Daemons, log: Path, tmp_path: Path
) -> None:
    """The task was cleared while the event was on its way."""
    gate = tmp_path / "gate"
    code = CODE.replace(
        "            yield Trig", f"            await gate({str(gate)!r})\n            yield Trig"
    ).replace(
        "class Takes",
        "async def gate(path):\n"
        "    from pathlib import Path\n"
        "    Path(path + '.there').touch()\n"
        "    while not Path(path).exists():\n"
        "        await asyncio.sleep(0.005)\n\n\n"
        "class Takes",
        1,
    )
    world = World(database_url, roost_home / "dags", code)
    (late,) = world.defer([{"cls": "Takes", "kwargs": {"log": str(log)}}])
    daemons.start("triggerer")
    wait_until((tmp_path / "gate.there").exists, what="the trigger")
    world.rows("UPDATE trigger SET epoch = epoch + 1 WHERE id = :id", id=late)
    gate.touch()
    wait_until(lambda: log.exists() and "cleanup" in log.read_text(), what="the end")
    assert log.read_text().startswith("closed\ncleanup\n")
