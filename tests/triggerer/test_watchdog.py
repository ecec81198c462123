"""Who blocks the loop where the watchdog could not look: calls that hold the GIL (D20)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.triggerer.messages import Blocked
from tests.triggerer.runner_process import RunnerProcess

CODE = (Path(__file__).parent / "gil_triggers.py").read_text()
HEALTHY = range(1, 21)
CULPRIT = 99
TIMES = 3


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    child = RunnerProcess(tmp_path, CODE)
    for number in HEALTHY:
        child.start(number, "Ticks")
    yield child
    child.close()


def over(runner: RunnerProcess) -> list[Blocked]:
    """The blocks that were told of to their end."""
    return [note for note in runner.blocked if note.over]


def call(runner: RunnerProcess, what: str, how: str, least: int = TIMES) -> set[str]:
    """Have it called, and at least so many blocks told, while the healthy ones go on; gives
    where the blocks were seen."""
    runner.start(CULPRIT, "Calls", what=what, how=how, times=TIMES)
    assert runner.wait_reports(CULPRIT)[CULPRIT].kind == "fired"
    seen = len(runner.messages)
    runner.read_until(lambda: len(runner.messages) > seen + 1 and len(over(runner)) >= least)
    assert {note.trigger_id for note in runner.blocked} <= {CULPRIT}
    assert {note.label for note in runner.blocked} <= {"waits.t99 run r1"}
    return {note.where for note in runner.blocked}


@pytest.mark.parametrize("what", ["regex", "sum", "power", "sleep"])
@pytest.mark.parametrize("how", ["step", "task", "callback"])
def test_who_holds_the_gil_is_named(runner: RunnerProcess, what: str, how: str) -> None:
    """D20: each block is told of as its trigger's, with its line; no healthy one is ever named."""
    places = call(runner, what, how)
    assert len(over(runner)) == TIMES
    assert all(note.blocked_us >= 150_000 for note in over(runner))
    told = [place for place in places if re.search(r"waits\.py:\d+ in ", place)]
    assert told, places


def test_a_callback_without_python_code_is_named(runner: RunnerProcess) -> None:
    """D20: ``call_soon(sum, …)``: no frame of its trigger is ever on the stack."""
    assert call(runner, "sum", "bare") == {"sum(), which the loop was to call"}


def test_who_holds_the_gil_is_named_in_a_crowd(runner: RunnerProcess) -> None:
    """D20: also where other threads get the GIL before the watchdog's."""
    assert call(runner, "regex", "crowd")


@pytest.mark.parametrize("what", ["regex", "sleep"])
def test_a_thread_that_holds_the_gil_is_no_step(runner: RunnerProcess, what: str) -> None:
    """D20: whose step was waiting for the GIL meanwhile has not blocked anybody."""
    call(runner, what, "thread", least=0)
