"""What a triggerer keeps of triggers is bounded by those that wait, not by those that came."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import MagicMock

import msgspec
import pytest

from roost.support.frames import MAX_FRAME
from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.case import Case
from roost.triggerer.host import Host
from roost.triggerer.journal import Journal
from roost.triggerer.line import NO_MESSAGE
from roost.triggerer.messages import Beat, Said, Start, Together, decode_from_runner
from roost.triggerer.ward import Ward
from tests.triggerer.runner_process import RunnerProcess

MANY = 20_000
FEW = 5_000

POOLED = """
import asyncio, os
from roost.exceptions import RoostException
from roost.triggers import PooledTrigger


class Fails(PooledTrigger):
    def __init__(self, go):
        self.go = go

    def serialize(self):
        return ("Fails", {"go": self.go})

    def poll_key(self):
        return "one for all"

    @classmethod
    async def poll_many(cls, triggers):
        (one,) = triggers.values()
        while not os.path.exists(one.go):
            await asyncio.sleep(0.02)
        raise RoostException("x" * 10_000)
"""


def _spec(number: int) -> TriggerSpec:
    return TriggerSpec(
        trigger_id=number, epoch=1, classpath="Waits", source="waits:Waits",
        kwargs=msgspec.Raw(b"{}"), code_hash="a" * 64, fileloc="waits.py", dag_id="waits",
        run_id=f"r{number}", task_id="t", map_index=-1, try_number=1,
    )  # fmt: skip


def test_who_was_polled_with_whom_is_forgotten() -> None:
    """A group is told of anew whenever its first has gone: for months in a busy runner."""
    ward = Ward(MagicMock(), apart=False)
    for number in range(MANY):
        ward.running = {number: 1, number + 1: 1}
        ward.together(Together(number, [number, number + 1]))
    assert len(ward._together) < FEW
    assert ward.all_with(MANY - 1) == {MANY - 1: 1, MANY: 1}


def test_names_of_runs_are_forgotten() -> None:
    """Triggers share what their names have in common; every run has a name of its own."""

    async def run() -> int:
        host = Host(asyncio.get_running_loop())
        host._group, host._registry = MagicMock(), MagicMock()
        host._ways = (MagicMock(),) * 6
        host._spawn = MagicMock()  # type: ignore[method-assign]
        host._live = MagicMock()  # type: ignore[method-assign]
        for number in range(MANY):
            host._start(Start([_spec(number)]))
            host.cases.pop(number - 1, None)
        return len(host._labels)

    assert asyncio.run(run()) < FEW


def test_who_has_spoken_is_forgotten() -> None:
    """D21: also those of whom only the runner has told something, such as that they failed."""
    cases: dict[int, Case] = {}
    sent: list[int] = []

    def send(said: list[Said]) -> bool:
        sent.extend(one.trigger_id for one in said)
        return True

    journal = Journal(cases.get, send, MagicMock())
    for number in range(MANY):
        cases[number] = Case(_spec(number), {})
        journal.say(cases[number], "it failed")
        journal.ended(cases.pop(number))
        if number % 100 == 0:
            journal.flush()
    journal.flush()
    assert len(journal._speakers) < FEW
    assert sent == list(range(MANY))


@pytest.mark.parametrize(
    "body",
    [
        b"a line of text",
        b'{"type":"Unheard"}',
        b'{"type":"Beat","running":"many"}',
        b'{"type":"Blocked","trigger_id":1,"label":"\xed\xa0\x80","where":"","blocked_us":1}',
        b'{"type":"Reports","reports":[{"trigger_id":1,"epoch":1,"kind":"fired","payload":'
        + b"[" * 5_000 + b"]" * 5_000 + b"}]}",
    ],
)  # fmt: skip
def test_what_is_no_message_is_known_as_such(body: bytes) -> None:
    """Whatever code that has taken a runner over sends, its supervisor expects it."""
    with pytest.raises(NO_MESSAGE):
        decode_from_runner(body)


def test_many_that_fail_at_once_have_much_to_say(tmp_path: Path) -> None:
    """D5: thousands of tasks wait for one thing, and each log gets the error, in many messages."""
    count = MAX_FRAME // 10_000 + 100
    runner = RunnerProcess(tmp_path, POOLED)
    go = tmp_path / "go"
    try:
        specs = [runner.spec(number, "Fails", 1, {"go": str(go)}) for number in range(count)]
        runner.send(Start([], [runner.source]))
        for start in range(0, count, 500):
            runner.send(Start(specs[start : start + 500]))
        runner.read_until(
            lambda: any(isinstance(m, Beat) and m.running == count for m in runner.messages)
        )
        go.touch()
        assert {one.kind for one in runner.wait_reports(*range(count)).values()} == {"failed"}
    finally:
        runner.close()
