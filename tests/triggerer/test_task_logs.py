"""What triggers log and print is in the logs of their tasks (D21), by real triggerers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.support.logfile import log_path
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import asyncio, logging, os, sys, threading
from roost.dag.trigger import BaseTrigger, TriggerEvent

log = logging.getLogger("waits")


class Speaks(BaseTrigger):
    def __init__(self, what, word="", path=""):
        self.what, self.word, self.path = what, word, path

    def serialize(self):
        return ("Speaks", {"what": self.what, "word": self.word, "path": self.path})

    async def run(self):
        await getattr(self, self.what)()
        yield TriggerEvent(self.word)

    async def cleanup(self):
        log.info("cleaned up")

    async def everything(self):
        log.info("hello %s", self.word)
        log.debug("not seen")
        print("printed", self.word)
        print("to stderr", file=sys.stderr)
        print("grüße \\U0001f413")
        print("half \\ud800")
        print("two\\nlines")
        sys.stdout.buffer.write(b"bytes \\xff\\x00\\n")
        print("no end", end="")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("it broke")
        log.error("%d", "no number")
        await asyncio.to_thread(log.warning, "from a thread")
        await asyncio.create_task(self.child())
        threading.Thread(target=print, args=("from nobody",)).start()

    async def child(self):
        log.info("from a task")

    async def waits(self):
        print("waiting")
        while not os.path.exists(self.path):
            self.note(f"no {self.word}")
            await asyncio.sleep(0.01)

    async def turns(self):
        for number in range(5):
            print(self.word, end=" ")
            await asyncio.sleep(0)
            print(number)

    async def floods(self):
        for number in range(100_000):
            print("flood", number)
        await asyncio.sleep(1.1)
        print("after the flood")

    async def fails(self):
        self.note("saw nothing")
        self.note("saw nothing")
        self.note("saw a wolf")
        raise ValueError("no sheep")

    async def leaks(self):
        found = await self.get_connection("c")
        log.info("password %s", found.password)
        print("again", found.password)

    async def exits(self):
        print("last words")
        os._exit(3)
"""


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", CODE)


@pytest.fixture
def logs(roost_home: Path) -> Logs:
    return Logs(roost_home / "logs")


class Logs:
    """The task logs of a world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int, map_index: int = -1, try_number: int = 1) -> Path:
        name = f"t{number:07}"
        return Path(log_path(self.folder, "waits", "r", name, map_index, try_number))

    def wait(self, number: int, text: str, **which: int) -> str:
        """The log of one task, as soon as it holds a text."""
        path = self.path(number, **which)
        wait_until(
            lambda: path.exists() and text in path.read_text(), what=f"{text!r} in {path.name}"
        )
        return path.read_text()


def speaks(what: str, word: str = "", **more: object) -> dict[str, object]:
    path = more.pop("path", "")
    return {"cls": "Speaks", "kwargs": {"what": what, "word": word, "path": str(path)}, **more}


def test_all_that_a_trigger_says_is_marked_in_its_tasks_log(
    world: World, daemons: Daemons, logs: Logs
) -> None:
    """D21: log records, prints, bytes, tracebacks, threads and tasks; the mark is on each line."""
    (number,) = world.defer([speaks("everything", "world")])
    triggerer = daemons.start("triggerer")
    found = logs.wait(number, "cleaned up")
    mark = f"[trigger {number}] "
    assert all(mark in line for line in found.splitlines())
    stamp = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000\] \{waits\.py:\d+\} "
    assert re.search(stamp + "INFO - " + re.escape(mark) + "hello world\n", found)
    for line in (
        "printed world", "to stderr", "grüße \U0001f413", "half \\ud800", "two", "lines",
        "bytes \\xff\0",
        "Traceback (most recent call last):", "ZeroDivisionError: division by zero",
    ):  # fmt: skip
        assert f"\n{mark}{line}\n" in found
    for words in ("it broke", "from a thread", "from a task"):
        assert f" - {mark}{words}\n" in found
    assert "no end" in found
    assert "not seen" not in found
    assert "from nobody" not in found
    wait_until(lambda: "from nobody" in triggerer.output, what="what no trigger said")
    assert "hello world" not in triggerer.output


def test_logs_grow_while_triggers_wait(
    world: World, daemons: Daemons, logs: Logs, tmp_path: Path
) -> None:
    """D21: live; tries and mapped instances have files of their own."""
    first, second = world.defer([speaks("waits", path=tmp_path / "x") for _ in range(2)])
    world.rows("UPDATE task_instance SET try_number = 2 WHERE id = :id", id=first)
    world.rows("UPDATE task_instance SET map_index = 7 WHERE id = :id", id=second)
    daemons.start("triggerer")
    logs.wait(first, f"[trigger {first}] waiting\n", try_number=2)
    logs.wait(second, f"[trigger {second}] waiting\n", map_index=7)
    assert not world.events()


def test_lines_of_two_triggers_do_not_mix(world: World, daemons: Daemons, logs: Logs) -> None:
    """D21: each has its own unfinished line."""
    both = world.defer([speaks("turns", "a"), speaks("turns", "b")])
    daemons.start("triggerer")
    for number, word in zip(both, "ab", strict=True):
        found = logs.wait(number, "cleaned up")
        said = [f"[trigger {number}] {word} {turn}" for turn in range(5)]
        assert [line for line in found.splitlines() if "cleaned" not in line] == said


def test_a_flood_is_cut(world: World, daemons: Daemons, logs: Logs) -> None:
    """D21: who prints without end fills no disk, and a line says how much is missing."""
    (number,) = world.defer([speaks("floods")])
    daemons.start("triggerer")
    found = logs.wait(number, "after the flood")
    kept = found.count(" flood ")
    dropped = [int(count) for count in re.findall(r"… (\d+) lines dropped", found)]
    assert kept + sum(dropped) == 100_000
    assert kept < 50_000


def test_the_last_polls_are_told_when_a_trigger_fails(
    world: World, daemons: Daemons, logs: Logs
) -> None:
    """The black box of a failure, and the failure itself; equal notes are one."""
    (number,) = world.defer([speaks("fails")])
    daemons.start("triggerer")
    found = logs.wait(number, "ValueError: no sheep")
    mark = re.escape(f"[trigger {number}] ")
    assert re.search(rf"{mark}the last polls of trigger {number} \(Speaks\):\n", found)
    assert re.search(rf"{mark}  \S+ to \S+, 2 times: saw nothing\n", found)
    assert re.search(rf"{mark}  \S+Z: saw a wolf\n", found)
    assert found.index("saw a wolf") < found.index("no sheep")
    assert re.search(rf"ERROR - {mark}Speaks failed: ", found)


def test_the_last_polls_are_told_when_nobody_waits_any_more(
    world: World, daemons: Daemons, logs: Logs, tmp_path: Path
) -> None:
    """The black box of a time-out or a clear: its row is gone. A hand-over writes none."""
    handed, timed_out = world.defer([speaks("waits", "x", path=tmp_path / "x") for _ in range(2)])
    triggerer = daemons.start("triggerer")
    logs.wait(handed, "waiting")
    logs.wait(timed_out, "waiting")
    world.settle([timed_out])
    found = logs.wait(timed_out, "no x")
    assert "nobody waits any more: it timed out, or its run did\n" in found
    assert f"the last polls of trigger {timed_out} (Speaks):" in found
    assert triggerer.stop() == 0
    assert "the last polls" not in logs.path(handed).read_text()


def test_secrets_are_hidden(world: World, daemons: Daemons, logs: Logs) -> None:
    """D21, S51: what a trigger was given by name is hidden in what it says."""
    (number,) = world.defer([speaks("leaks")])
    daemons.start("triggerer", env={"ROOST_CONN_C": "http://user:s3cret-pw@host"})
    found = logs.wait(number, "cleaned up")
    assert "password ***" in found
    assert "again ***" in found
    assert "s3cret-pw" not in found


def test_the_last_words_of_a_runner_are_kept(world: World, daemons: Daemons, logs: Logs) -> None:
    """D21: who ends the runner has said something before."""
    (number,) = world.defer([speaks("exits")])
    daemons.start("triggerer")
    logs.wait(number, "last words")


def test_a_log_that_cannot_be_written_hurts_nobody(
    world: World, daemons: Daemons, logs: Logs, roost_home: Path
) -> None:
    """D21: the event is stored all the same, and the process log says what is missing."""
    logs.folder.parent.mkdir(exist_ok=True)
    if logs.folder.exists():
        logs.folder.rmdir()
    logs.folder.write_text("a file, not a folder")
    (number,) = world.defer([speaks("everything", "w")])
    triggerer = daemons.start("triggerer")
    wait_until(lambda: number in world.events(), what="the event")
    wait_until(lambda: "not in its task's log" in triggerer.output, what="the warning")
