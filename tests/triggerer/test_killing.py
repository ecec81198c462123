"""``on_kill()`` in the runner: of whom, when, how long, and what follows (D10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.triggerer.runner_process import RunnerProcess

CODE = """
import asyncio, os, time
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.triggers import PooledTrigger


class Tells(BaseTrigger):
    def __init__(self, path, how="well"):
        self.path, self.how = path, how
        self.tell("made")

    def serialize(self):
        return ("Tells", {"path": self.path})

    def tell(self, word):
        with open(self.path, "a") as file:
            file.write(word + " ")

    async def run(self):
        self.tell("run")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.tell("cancelled")
                if self.how != "stays":
                    raise
        yield TriggerEvent()

    async def on_kill(self):
        self.tell("killed")
        if self.how == "raises":
            raise SystemExit("no")
        if self.how == "hangs":
            await asyncio.sleep(3600)

    async def cleanup(self):
        self.tell("clean")


class Without(BaseTrigger):
    def __init__(self, path):
        self.path = path
        open(path, "a").close()

    def serialize(self):
        return ("Without", {"path": self.path})

    async def run(self):
        await asyncio.sleep(3600)
        yield TriggerEvent()


class Pooled(PooledTrigger):
    def __init__(self, path):
        self.path = path

    def serialize(self):
        return ("Pooled", {"path": self.path})

    def poll_key(self):
        return "key"

    @classmethod
    async def poll_many(cls, triggers):
        open(triggers["key"].path + ".polled", "w").close()
        return {}

    async def on_kill(self):
        with open(self.path, "a") as file:
            file.write("killed ")
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    made = RunnerProcess(tmp_path, CODE)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "told"


def wait_killed(runner: RunnerProcess, trigger_id: int = 1) -> tuple[bool, bool]:
    """Whether it was called, and whether that failed; with the epoch of the kill."""
    runner.read_until(lambda: trigger_id in runner.killed)
    told = runner.killed[trigger_id]
    assert told.epoch == 2
    return told.called, told.failed


def test_the_very_object_that_runs_is_cancelled_then_asked_then_cleaned_d10(
    runner: RunnerProcess, path: Path
) -> None:
    runner.start(1, "Tells", path=str(path))
    runner.wait_written(path, "run")
    runner.kill(1, "Tells", path=str(path))
    assert wait_killed(runner) == (True, False)
    runner.wait_written(path, "clean")
    assert path.read_text() == "made run cancelled killed clean "
    runner.read_until(lambda: "on_kill() was called" in runner.words)
    assert "nobody waits any more: a user ended it\n" in runner.words
    assert runner.reports == {}


def test_one_that_does_not_run_here_is_made_for_it_d10(runner: RunnerProcess, path: Path) -> None:
    """What is not there is not run, either."""
    runner.kill(1, "Tells", path=str(path))
    assert wait_killed(runner) == (True, False)
    runner.wait_written(path, "clean")
    assert path.read_text() == "made killed clean "


def test_a_class_that_has_none_is_not_even_made_d10(runner: RunnerProcess, path: Path) -> None:
    runner.kill(1, "Without", path=str(path))
    assert wait_killed(runner) == (False, False)
    assert not path.exists()


def test_one_that_ignores_being_cancelled_is_asked_all_the_same_d10(
    runner: RunnerProcess, path: Path
) -> None:
    runner.start(1, "Tells", path=str(path), how="stays")
    runner.wait_written(path, "run")
    runner.kill(1, "Tells", path=str(path))
    assert wait_killed(runner) == (True, False)
    words = path.read_text().split()
    assert words[:3] == ["made", "run", "cancelled"]
    assert words.count("killed") == 1


@pytest.mark.parametrize(("how", "words"), [("raises", "SystemExit: no"), ("hangs", "after 0.1 s")])
def test_what_goes_wrong_is_in_the_tasks_log_and_cleanup_follows_d10(
    runner: RunnerProcess, path: Path, how: str, words: str
) -> None:
    runner.start(1, "Tells", path=str(path), how=how)
    runner.wait_written(path, "run")
    runner.kill(1, "Tells", timeout_s=0.1, path=str(path))
    assert wait_killed(runner) == (True, True)
    runner.wait_written(path, "clean")
    runner.read_until(lambda: "on_kill()" in runner.words)
    assert words in runner.words


def test_one_whose_class_is_gone_is_over_and_says_so_d10(runner: RunnerProcess) -> None:
    runner.kill(1, "NoSuch")
    assert wait_killed(runner) == (True, True)
    runner.read_until(lambda: "ERROR - [trigger 1] on_kill() could not be called" in runner.words)


def test_a_seat_in_a_poll_is_given_up_and_its_own_object_asked_d10(
    runner: RunnerProcess, path: Path
) -> None:
    runner.start(1, "Pooled", path=str(path))
    runner.start(2, "Pooled", path=str(path))
    runner.wait_written(path.with_suffix(".polled"), "")
    runner.kill(1, "Pooled", path=str(path))
    assert wait_killed(runner) == (True, False)
    assert path.read_text() == "killed "
    assert "[trigger 1] nobody waits any more: a user ended it\n" in runner.words
