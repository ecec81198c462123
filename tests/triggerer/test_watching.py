"""Watchers in the runner: event after event, begun anew when they fail (D13)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support import typedjson
from roost.triggerer.messages import Cancel, Kept
from tests.triggerer.runner_process import RunnerProcess

CODE = """
import asyncio, os, sys
from roost.triggers import BaseEventTrigger, BaseTrigger, TaskSuccessEvent, TriggerEvent


class Logs(BaseEventTrigger):
    def __init__(self, log, **more):
        self.log, self.more = log, more

    def serialize(self):
        return (type(self).__name__, {"log": self.log, **self.more})

    def tell(self, text):
        with open(self.log, "a") as file:
            file.write(f"{text}\\n")

    async def cleanup(self):
        self.tell("cleanup")


class Counts(Logs):
    async def run(self):
        for number in range(self.more.get("most", 1_000_000)):
            yield TriggerEvent({"number": number}, key=f"k{number}")
            self.tell(f"after {number}")

    async def on_stored(self):
        self.tell("stored")


class Once(Logs):
    async def run(self):
        yield TriggerEvent("word")


class Bad(Logs):
    async def run(self):
        what = self.more["what"]
        if what == "raises":
            raise ValueError("the broker is closed")
        if what == "exits":
            sys.exit(3)
        if what == "cancels itself":
            asyncio.current_task().cancel()
            await asyncio.sleep(60)
        if what == "ends without an event":
            return
        yield {"plain": 1, "end": TaskSuccessEvent(), "nan": TriggerEvent(float("nan")),
               "key": TriggerEvent(key="")}[what]


class Task(BaseTrigger):
    def __init__(self, log):
        self.log = log

    def serialize(self):
        return ("Task", {"log": self.log})

    async def run(self):
        yield TriggerEvent()
"""
TROUBLES = {
    "raises": "ValueError: the broker is closed",
    "exits": "SystemExit: 3",
    "cancels itself": "cancelled itself",
    "ends without an event": "Bad ended without an event",
    "plain": "yielded int; yield TriggerEvent(payload) instead",
    "end": "a watcher has no task",
    "nan": "cannot be stored",
    "key": "a key is a text of 1 to 200 characters",
}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, CODE)
    yield process
    process.close()


def test_a_watcher_goes_on_when_its_event_is_stored_and_not_before(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D13: one event at a time; what follows the yield, and on_stored(), come after it."""
    log = tmp_path / "log"
    runner.watch(1, "Counts", log=str(log))
    for number in range(3):
        runner.read_until(lambda number=number: len(runner.seen(1)) == number + 1)  # type: ignore[misc]
        told = runner.seen(1)[-1]
        assert (typedjson.decode(told.extra), told.key) == ({"number": number}, f"k{number}")
        written = log.read_text().split("\n")[:-1] if log.exists() else []
        assert written == [line for n in range(number) for line in ("stored", f"after {n}")]
        runner.keep(told)
    numbers = [one.number for one in runner.seen(1)]
    assert numbers == sorted(set(numbers))
    runner.send(Cancel([1], [1]))
    runner.wait_written(log, "cleanup")


def test_a_receipt_for_another_event_lets_nobody_go_on(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D13: a runner may be told of an event that another one has reported under the same claim."""
    log = tmp_path / "log"
    runner.watch(1, "Counts", log=str(log))
    runner.read_until(lambda: runner.seen(1))
    (told,) = runner.seen(1)
    runner.send(Kept([(1, 1, told.number - 1, True), (1, 2, told.number, True)]))
    runner.watch(2, "Counts", log=str(tmp_path / "other"))
    runner.read_until(lambda: runner.seen(2))
    assert not log.exists() and len(runner.seen(1)) == 1


def test_a_watcher_that_ends_or_is_refused_is_begun_anew(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D13: a run() that ends after an event is begun anew; so is one whose event was refused."""
    runner.watch(1, "Once", log=str(tmp_path / "log"))
    runner.watch(2, "Counts", log=str(tmp_path / "other"))
    runner.read_until(lambda: runner.seen(1) and runner.seen(2))
    runner.keep(runner.seen(1)[0])
    runner.keep(runner.seen(2)[0], stored=False)
    runner.read_until(lambda: len(runner.seen(1)) == 2 and len(runner.seen(2)) == 3)
    assert [typedjson.decode(one.extra) for one in runner.seen(1)] == [{"payload": "word"}] * 2
    first, trouble, again = runner.seen(2)
    assert "not stored" in (trouble.trouble or "") and again.key == first.key == "k0"


@pytest.mark.parametrize("what", TROUBLES)
def test_a_bad_watcher_tells_its_trouble_and_is_begun_anew(
    runner: RunnerProcess, tmp_path: Path, what: str
) -> None:
    """D13: it harms nobody, its reason is told each time, and cleanup() is called each time."""
    runner.watch(1, "Bad", log=str(tmp_path / "log"), what=what)
    runner.start(5, "Task", log=str(tmp_path / "task"))
    runner.wait_reports(5)
    runner.read_until(lambda: len(runner.seen(1)) == 2)
    for told in runner.seen(1):
        assert TROUBLES[what] in (told.trouble or ""), told
        assert "begun anew after" in (told.trouble or "")
    assert (tmp_path / "log").read_text().count("cleanup") == 2
    assert "[trigger 1]" in runner.output


def test_a_trigger_for_tasks_is_no_watcher(runner: RunnerProcess, tmp_path: Path) -> None:
    """D13: whatever the row says, only a BaseEventTrigger goes on after an event."""
    runner.watch(1, "Task", log=str(tmp_path / "log"))
    runner.read_until(lambda: runner.seen(1))
    assert "is no BaseEventTrigger" in (runner.seen(1)[0].trouble or "")


SHARED = '''
import asyncio, os
from roost.triggers import BaseEventTrigger, StreamItem, TriggerEvent


class Shared(BaseEventTrigger):
    """All lines of a file, one poll for all; those of a word for each."""

    def __init__(self, path, word):
        self.path, self.word = path, word

    def serialize(self):
        return ("Shared", {"path": self.path, "word": self.word})

    async def run(self):
        raise AssertionError("it shares a stream")
        yield

    def shared_stream_key(self):
        return self.path

    @classmethod
    async def open_shared_stream(cls, kwargs):
        def heard(word, line):
            async def write():
                with open(kwargs["path"] + ".heard", "a") as file:
                    file.write(f"{word} {line}\\n")
            return write
        with open(kwargs["path"] + ".opened", "a") as file:
            file.write("opened\\n")
        done = 0
        while True:
            lines = open(kwargs["path"]).read().split()
            for line in lines[done:]:
                yield StreamItem(line, heard("ack", line), heard("nack", line))
            done = len(lines)
            await asyncio.sleep(0.02)

    @classmethod
    async def filter_shared_stream(cls, stream, kwargs):
        async for line in stream:
            if kwargs["word"] in line:
                yield TriggerEvent({"line": line})
'''


def test_a_shared_stream_advances_when_all_events_are_stored(tmp_path: Path) -> None:
    """D14: one poll feeds the watchers of a runner; an item is acknowledged when nobody's event
    of it is under way any more, and given back when one leaves before."""
    path, heard = tmp_path / "lines", tmp_path / "lines.heard"
    path.touch()
    runner = RunnerProcess(tmp_path, SHARED)
    try:
        for number, word in ((1, "a"), (2, "b")):
            runner.watch(number, "Shared", path=str(path), word=word)
        runner.wait_written(tmp_path / "lines.opened", "opened")
        runner.read_until(lambda: [1, 2] in [one.trigger_ids for one in runner.together])
        path.write_text("a1 ab2 c3 ab4\n")
        runner.read_until(lambda: runner.seen(1) and runner.seen(2))
        assert not heard.exists()
        runner.keep(runner.seen(2)[0])  # of ab2, while a1 is still under way
        runner.read_until(lambda: len(runner.seen(2)) == 2)
        assert not heard.exists()
        runner.keep(runner.seen(1)[0])
        runner.wait_written(heard, "ack a1")
        runner.read_until(lambda: len(runner.seen(1)) == 2)
        assert heard.read_text() == "ack a1\n"
        runner.keep(runner.seen(1)[1])
        runner.wait_written(heard, "ack c3")
        assert heard.read_text() == "ack a1\nack ab2\nack c3\n"
        runner.send(Cancel([2]))
        runner.read_until(lambda: len(runner.seen(1)) == 3)
        runner.keep(runner.seen(1)[2])
        runner.wait_written(heard, "nack ab4")
        assert (tmp_path / "lines.opened").read_text() == "opened\n"
    finally:
        runner.close()
