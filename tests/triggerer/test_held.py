"""Who holds the GIL is named while it goes on, by the supervisor: nobody else can (D20)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from roost.triggerer.held import Held, Stall, calls_in
from roost.triggerer.messages import SHARED_BYTES
from roost.triggerer.places import Call
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.world import World

CODE = """
import asyncio
import ctypes
import re

from roost.dag.trigger import BaseTrigger, TriggerEvent


class Healthy(BaseTrigger):
    def serialize(self):
        return ("Healthy", {})

    async def run(self):
        while True:
            await asyncio.sleep(0.01)
        yield


class Holds(BaseTrigger):
    def __init__(self, size):
        self.size = size

    def serialize(self):
        return ("Holds", {"size": self.size})

    async def run(self):
        await asyncio.sleep(0.3)
        if self.size:
            self.match("x" * self.size)
        else:
            self.sleep()
        await asyncio.sleep(0.3)
        yield TriggerEvent("matched")

    def match(self, text):
        re.match("(x+)+y", text)  # here

    def sleep(self):
        ctypes.PyDLL(None).usleep(600_000)  # there
"""
LINE, SLEEPS = (
    next(number for number, line in enumerate(CODE.splitlines(), 1) if mark in line)
    for mark in ("# here", "# there")
)
_BLOCKS = r"trigger {id} \(waits\.t\d+ run r\) blocks every trigger of this runner .* at {where}"


def _start(world: World, daemons: Daemons, size: int) -> tuple[int, Daemon]:
    world.defer([{"cls": "Healthy"}] * 10)
    (culprit,) = world.defer([{"cls": "Holds", "kwargs": {"size": size}}])
    return culprit, daemons.start("triggerer")


def _told(triggerer: Daemon, culprit: int) -> list[str]:
    where = rf"\S*waits\.py:{LINE} in match"
    return re.findall(_BLOCKS.format(id=culprit, where=where), triggerer.output)


def test_who_never_lets_go_is_named_before_its_runner_is_killed(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """D20: trigger, DAG, task and line, in the log and in its row; then the kill says the same."""
    world = World(database_url, roost_home / "dags", CODE)
    culprit, triggerer = _start(world, daemons, size=60)
    wait_until(lambda: _told(triggerer, culprit), timeout=60, what="its name")
    assert "was killed because" not in triggerer.output
    trouble = f"blocked its runner .* at .*waits.py:{LINE} in match"
    wait_until(
        lambda: any(
            re.search(trouble, row["trouble"] or "")
            for row in world.rows("SELECT id, trouble FROM trigger")
            if row["id"] == culprit
        ),
        timeout=60,
        what="its trouble",
    )
    killed = rf"was killed because it was silent for 5 s, at .*waits.py:{LINE} in match"
    wait_until(lambda: re.search(killed, triggerer.output), timeout=120, what="the kill")
    struck = {row["id"] for row in world.rows("SELECT id FROM trigger WHERE strikes > 0")}
    assert struck <= {culprit}


def test_a_block_that_ends_is_told_of_once(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """D20: the runner's watchdog, which sees it afterwards, adds only how long it was."""
    world = World(database_url, roost_home / "dags", CODE)
    culprit, triggerer = _start(world, daemons, size=26)  # a second or more
    wait_until(lambda: culprit in world.events(), timeout=60, what="its event")
    over = rf"trigger {culprit} \(.*\) has blocked its runner for \d"
    wait_until(lambda: re.search(over, triggerer.output), what="how long it was")
    assert len(_told(triggerer, culprit)) == 1
    assert triggerer.output.count("blocks every trigger") == 1


def test_who_sleeps_with_the_gil_is_named(
    database_url: str, roost_home: Path, daemons: Daemons
) -> None:
    """D20: it does not even run."""
    world = World(database_url, roost_home / "dags", CODE)
    culprit, triggerer = _start(world, daemons, size=0)
    wait_until(lambda: culprit in world.events(), timeout=60, what="its event")
    where = rf"\S*waits\.py:{SLEEPS} in sleep"
    told = _BLOCKS.format(id=culprit, where=where)
    wait_until(lambda: re.search(told, triggerer.output), what="its name and line")


class _Shared:
    """The memory as a runner would have it."""

    def __init__(self, watchdog: int) -> None:
        self.words = memoryview(bytearray(SHARED_BYTES)).cast("q")
        self.words[3] = watchdog

    def __getitem__(self, part: slice) -> bytes:
        return self.words.tobytes()[part]


@pytest.fixture
def busy() -> subprocess.Popen[bytes]:
    """A process whose main thread runs, and another that sleeps."""
    code = (
        "import re, threading, time\n"
        "thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)\n"
        "thread.start()\n"
        "print(thread.native_id, flush=True)\n"
        "while True: re.match('(x+)+y', 'x' * 20)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_what_moves_on_is_no_stall(busy: subprocess.Popen[bytes]) -> None:
    """Neither a watchdog that looks, nor another's step, nor an idle loop."""
    assert busy.stdout is not None
    shared = _Shared(int(busy.stdout.readline()))
    held = Held(busy.pid, -1, shared)  # type: ignore[arg-type]

    def ran(ns: int = 200_000_000) -> None:
        stat = Path(f"/proc/{busy.pid}/schedstat")
        since = int(stat.read_text().split()[0])
        wait_until(lambda: int(stat.read_text().split()[0]) > since + ns, what="its work")

    try:
        assert held.look() is None  # an idle loop
        for step, looks in ((7, 1), (7, 2), (8, 2), (0, 2), (8, 2)):
            shared.words[0], shared.words[2] = step, looks
            assert held.look() is None
            ran()
        stall = held.look()
        assert stall is not None
        assert stall.trigger_id == 8
        assert isinstance(stall, Stall)
        ran()
        assert held.look() is None  # told of once
        shared.words[3] = busy.pid  # a watchdog that has no CPU, or runs, is not kept by the GIL
        shared.words[2] = 3
        assert held.look() is None
        ran()
        assert held.look() is None
    finally:
        os.kill(busy.pid, 9)
        busy.wait()
        busy.stdout.close()


def test_the_stack_that_the_handler_writes_is_read() -> None:
    text = (
        "Stack (most recent call first):\n"
        '  File "/lib/re/__init__.py", line 166 in match\n'
        '  File "/dags/a b.py", line 7 in run\n'
    )
    assert calls_in(text) == [
        Call("/lib/re/__init__.py", 166, "match"),
        Call("/dags/a b.py", 7, "run"),
    ]
