"""When a runner hangs, judged of real processes: idle, stopped, busy, and without a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from roost.triggerer.pulse import LOOK_S, SILENCE_S, STARTING_S, STOPPED_S, Pulse, Sample, sample
from tests.support.waiting import wait_until

_SPIN = "while True: pass"
_LOOKS = round(SILENCE_S / LOOK_S)

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Pythons that are killed in the end."""
    started = []

    def begin(code: str) -> subprocess.Popen[bytes]:
        started.append(process := subprocess.Popen([sys.executable, "-S", "-c", code]))
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def idle(ran: int = 1, starved: int = 0) -> Sample:
    return Sample("S", ran, starved)


def looks(pulse: Pulse, samples: list[Sample | None]) -> list[str | None]:
    return [pulse.look(one) for one in samples]


def test_silence_is_judged_by_what_it_has_said() -> None:
    """D19: a word begins the count anew; until the first one there is more time."""
    pulse = Pulse()
    starting = round(STARTING_S / LOOK_S)
    assert looks(pulse, [idle()] * (starting - 1)) == [None] * (starting - 1)
    assert pulse.look(idle()) == "it was silent for 10 s from its start"
    pulse.heard()
    assert looks(pulse, [idle()] * (_LOOKS - 1)) == [None] * (_LOOKS - 1)
    assert pulse.look(idle()) == "it was silent for 5 s"


def test_a_kernel_that_does_not_tell_excuses_nothing() -> None:
    """Neither one without the file nor one that counts nothing."""
    for told in (None, Sample("R", 0, 0)):
        pulse = Pulse()
        pulse.heard()
        assert looks(pulse, [told] * _LOOKS)[-2:] == [None, "it was silent for 5 s"]


def test_a_long_wait_for_a_cpu_is_excused_once() -> None:
    """It is told when it is over, and was excused while it went on."""
    pulse = Pulse()
    pulse.heard()
    waits = [Sample("R", 5, 0)] * 100
    assert looks(pulse, [*waits, Sample("S", 6, 100 * 250_000_000)]) == [None] * 101
    assert looks(pulse, [Sample("S", 6, 100 * 250_000_000)] * _LOOKS)[-1] is not None


def test_a_process_without_a_cpu_does_not_hang(start: Start) -> None:
    """Beside another on one CPU, with the least of claims to it, it says nothing for 7 s."""
    starved, hog = start(_SPIN), start(_SPIN)
    cpu = {min(os.sched_getaffinity(0))}
    for process in (starved, hog):
        os.sched_setaffinity(process.pid, cpu)
    os.sched_setscheduler(starved.pid, os.SCHED_IDLE, os.sched_param(0))
    pulse = Pulse()
    pulse.heard()
    for _ in range(_LOOKS + 8):
        time.sleep(LOOK_S)
        assert pulse.look(sample(starved.pid)) is None


@pytest.mark.parametrize("code", [_SPIN, "import time; time.sleep(3600)"])
def test_a_process_that_is_busy_or_waits_hangs(start: Start, code: str) -> None:
    """D20: whoever has a CPU, or wants none, and says nothing."""
    process = start(code)
    pulse = Pulse()
    pulse.heard()

    def look() -> str | None:
        time.sleep(LOOK_S)
        return pulse.look(sample(process.pid))

    assert wait_until(look, 60, "it to be found") == "it was silent for 5 s"


def test_a_stopped_process_hangs_sooner(start: Start) -> None:
    """D19: it will not go on by itself. One that goes on in time does not hang."""
    process = start("import time; time.sleep(3600)")
    pulse = Pulse()
    pulse.heard()
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: (found := sample(process.pid)) and found.state == "T", what="it to stop")
    stopped = sample(process.pid)
    enough = round(STOPPED_S / LOOK_S)
    assert looks(pulse, [stopped] * (enough - 1)) == [None] * (enough - 1)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: (found := sample(process.pid)) and found.state != "T", what="it to go on")
    assert pulse.look(sample(process.pid)) is None
    assert looks(pulse, [stopped] * enough) == [None] * (enough - 1) + ["it was stopped for 1 s"]


def test_nobody_is_sampled() -> None:
    """A process that is gone says nothing, and raises nothing."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert sample(process.pid) is None
