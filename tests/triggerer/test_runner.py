"""The runner child: what triggers do is reported, and hurts nobody else (D5, D8, D9, D20)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.support import typedjson
from roost.triggerer.messages import Beat, Cancel, Stop
from tests.triggerer.runner_process import RunnerProcess

BAD_TRIGGERS = (Path(__file__).parent / "bad_triggers.py").read_text()

# Class, and a part of the error that its task is failed with.
FAILURES = {
    "Raises": "ValueError: the warehouse is closed\\0",
    "RaisesInInit": "KeyError: 'no such kwarg'",
    "ExitsInInit": "SystemExit: 9",
    "NoEvent": "ended without an event",
    "Returns": "`yield TriggerEvent(...)` instead of returning it",
    "NotAsync": "declare it `async def run(self)`",
    "YieldsPlain": "yielded dict; yield TriggerEvent(payload) instead",
    "YieldsNan": "nan is not JSON",
    "YieldsNul": "U+0000",
    "YieldsSurrogate": "lone surrogate",
    "YieldsObject": "cannot be stored",
    "YieldsHuge": "cannot be stored",
    "YieldsEndless": "cannot be stored",
    "Exits": "SystemExit: 3",
    "Interrupts": "KeyboardInterrupt",
    "CancelsItself": "cancelled itself",
    "RaisesCancelled": "cancelled itself",
    "Recurses": "RecursionError",
    "ExitsInTask": "SystemExit: 4",
    "ExitsInCallback": "RuntimeError: still there",
    "RaisesUnprintable": "BadStr",
    "Prints": "printed enough",
    "LeaksThread": "left a thread",
    "Forks": "only the parent reports",
}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    process = RunnerProcess(tmp_path, BAD_TRIGGERS)
    yield process
    process.close()


def test_each_bad_trigger_fails_alone(runner: RunnerProcess) -> None:
    """D5: every bad trigger is reported with its reason, 20 healthy ones beside them fire."""
    for number in range(20):
        runner.start(number, "Healthy", ticks=10 + number)
    bad = dict(enumerate(FAILURES, start=100))
    for number, cls in bad.items():
        runner.start(number, cls)
    runner.start(200, "Healthy", ticks=1, bogus=1)
    runner.start(201, "roost.no.such:Trigger")

    reports = runner.wait_reports(*range(20), *bad, 200, 201)

    for number in range(20):
        report = reports[number]
        assert report.kind == "fired", report.error
        assert typedjson.decode(report.payload) == 10 + number
    for number, cls in bad.items():
        assert reports[number].kind == "failed"
        error = reports[number].error or ""
        assert FAILURES[cls] in error, error
        assert "\0" not in error
    assert "unexpected keyword argument 'bogus'" in (reports[200].error or "")
    assert "is not registered" in (reports[201].error or "")
    assert runner.process.poll() is None


def test_traceback_starts_in_the_users_code(runner: RunnerProcess) -> None:
    """D5: the error is the user's traceback, without the runner's own frames before it."""
    runner.start(1, "Raises")
    error = runner.wait_reports(1)[1].error or ""
    frames = [line for line in error.splitlines() if line.lstrip().startswith("File ")]
    assert len(frames) == 1
    assert "waits.py" in frames[0]
    assert 'raise ValueError("the warehouse is closed' in error


def test_unregistered_class_is_not_imported(tmp_path: Path) -> None:
    """Security: a name that no parser found is refused before anything is imported."""
    planted = tmp_path / "planted.py"
    planted.write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    runner = RunnerProcess(tmp_path, BAD_TRIGGERS)
    try:
        runner.start(1, "planted:Trigger")
        assert "not registered" in (runner.wait_reports(1)[1].error or "")
        assert not (tmp_path / "imported").exists()
    finally:
        runner.close()


def test_built_in_triggers_need_no_dag_file(runner: RunnerProcess, tmp_path: Path) -> None:
    """A trigger of Roost's own is found by its name alone."""
    landed = tmp_path / "landed"
    landed.touch()
    runner.start(1, "roost.triggers.file:FileTrigger", paths=[str(landed)], poke_interval=1.0)
    assert typedjson.decode(runner.wait_reports(1)[1].payload) == [str(landed)]


def test_broken_dag_file_fails_its_triggers_only(tmp_path: Path) -> None:
    """A DAG file version that cannot be executed any more fails what needs it, with traceback."""
    runner = RunnerProcess(tmp_path, BAD_TRIGGERS)
    try:
        runner.source.source += "\nimport roost_no_such_helper\n"
        runner.start(1, "Healthy", ticks=0)
        runner.start(2, "roost.triggers.file:FileTrigger", paths=["/"], poke_interval=1.0)
        reports = runner.wait_reports(1, 2)
        last = (reports[1].error or "").splitlines()[-1]
        assert "cannot be imported: ModuleNotFoundError: No module named 'roost_no" in last
        assert reports[2].kind == "fired"
    finally:
        runner.close()


def test_first_event_wins_and_cleanup_may_fail(runner: RunnerProcess, tmp_path: Path) -> None:
    """D5, D9: one event is one report, whatever closing the generator or cleanup() do then."""
    runner.start(1, "BadGenerator")
    note = tmp_path / "note"
    runner.start(2, "Healthy", ticks=0, note=str(note))
    reports = runner.wait_reports(1, 2)
    assert typedjson.decode(reports[1].payload) == "first"
    runner.wait_written(note, "cleaned")
    assert runner.process.poll() is None


@pytest.mark.parametrize("cls", ["Blocks", "BlocksInTask", "BlocksInCallback"])
def test_watchdog_names_who_blocks(runner: RunnerProcess, cls: str) -> None:
    """D20: trigger, task and line are told while the loop is still blocked."""
    runner.start(7, cls)
    runner.read_until(lambda: runner.blocked)
    assert not runner.reports  # told before the blocking call came back
    (note,) = runner.blocked
    assert (note.trigger_id, note.label, note.over) == (7, "waits.t7 run r1", False)
    line = next(n for n, text in enumerate(BAD_TRIGGERS.splitlines(), 1) if "culprit" in text)
    if cls == "Blocks":
        assert note.where.endswith(f"waits.py:{line} in run")
    else:
        assert note.where.endswith(" in work")
    assert runner.wait_reports(7)[7].kind == "fired"
    runner.read_until(lambda: len(runner.blocked) == 2)
    assert runner.blocked[1].over
    assert runner.blocked[1].where == note.where
    assert runner.blocked[1].blocked_us > note.blocked_us


def test_watchdog_outlives_a_name_that_is_no_text(runner: RunnerProcess) -> None:
    """D20: who blocks in code with an odd name is told of, and so are those after it."""
    wanted: set[int] = set()
    for number, cls in ((7, "BlocksInOddFile"), (8, "Blocks")):
        wanted.add(number)
        runner.start(number, cls)
        runner.read_until(lambda: wanted <= {one.trigger_id for one in runner.blocked})


def test_stopped_runner_is_not_blocked(runner: RunnerProcess) -> None:
    """D20: nobody is accused for what the process was stopped, even in the middle of a step."""
    runner.start(7, "Blocks")
    runner.read_until(lambda: runner.blocked)
    runner.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # the time itself is what must not count
    runner.process.send_signal(signal.SIGCONT)
    runner.read_until(lambda: len(runner.blocked) == 2)
    assert runner.blocked[1].blocked_us < 1_400_000


def test_cancelled_trigger_reports_nothing_and_cleans_up(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """D9: a trigger whose row is gone ends even if it swallows the first cancellation."""
    note = tmp_path / "note"
    runner.start(1, "Stubborn", note=str(note))
    runner.wait_written(note, "running")
    runner.send(Cancel([1]))
    runner.wait_written(note, "cleaned")
    assert note.read_text().split() == ["running", "swallowed", "cleaned"]
    runner.read_until(lambda: runner.messages[-1] == Beat(0))
    assert not runner.reports


@pytest.mark.parametrize(
    ("then", "notes", "said"),
    [
        ("ends", ["went on", "cleaned"], ""),
        ("yields", ["went on", "cleaned"], "yielded a second event, which is lost"),
        ("raises", ["went on", "cleaned"], "ValueError: too late"),
        ("waits", ["went on", "cancelled", "cleaned"], ""),
        ("stays", ["went on", "cancelled"], "does not end when cancelled and is dropped"),
    ],
)
def test_run_comes_to_its_end_behind_its_event(
    runner: RunnerProcess, tmp_path: Path, then: str, notes: list[str], said: str
) -> None:
    """reliability.md 2b: the first event wins, a second one is logged; D9: then it cleans up."""
    note = tmp_path / "note"
    runner.start(1, "GoesOn", note=str(note), then=then)
    report = runner.wait_reports(1)[1]
    assert (report.kind, typedjson.decode(report.payload)) == ("fired", "first")
    runner.wait_written(note, notes[-1])
    runner.read_until(lambda: runner.messages[-1] == Beat(0))
    assert list(dict.fromkeys(note.read_text().split("\n")[:-1])) == notes
    for log in (runner.log.read_text(), runner.words):  # the triggerer's, and the task's
        assert said in log
        assert ("trigger 1" in log) == bool(said)


def test_same_trigger_sent_twice_runs_once(runner: RunnerProcess, tmp_path: Path) -> None:
    """A repeated spec is the same trigger; a higher epoch replaces it."""
    note = tmp_path / "note"
    runner.start(1, "Stubborn", note=str(note))
    runner.start(1, "Stubborn", note=str(note))
    runner.wait_written(note, "running")
    runner.start(1, "Healthy", epoch=2, ticks=20)
    report = runner.wait_reports(1)[1]
    assert (report.epoch, typedjson.decode(report.payload)) == (2, 20)
    assert note.read_text().count("running") == 1


def test_stop_lets_triggers_clean_up(runner: RunnerProcess, tmp_path: Path) -> None:
    """A hand-over cancels triggers, gives them time to clean up and reports nothing."""
    note = tmp_path / "note"
    runner.start(1, "Stubborn", note=str(note))
    runner.start(2, "LeaksThread")
    runner.wait_reports(2)
    runner.wait_written(note, "running")
    runner.send(Stop(5_000_000))
    assert runner.process.wait(20) == 0
    assert "cleaned" in note.read_text()


def test_runner_ends_with_its_supervisor(runner: RunnerProcess) -> None:
    """A runner whose line is gone ends by itself."""
    runner.start(1, "Healthy", ticks=0)
    runner.wait_reports(1)
    runner.hang_up()
    assert runner.process.wait(20) == 0


def test_sigterm_does_not_end_a_runner(runner: RunnerProcess) -> None:
    """Only the supervisor stops it: systemd signals the whole control group."""
    runner.read_until(lambda: runner.messages)
    runner.process.terminate()
    runner.start(1, "Healthy", ticks=0)
    assert runner.wait_reports(1)[1].kind == "fired"


def test_runner_never_loads_a_database() -> None:
    """The process that runs user code imports neither SQLAlchemy nor a driver."""
    code = (
        "import roost.triggerer.runner, sys; "
        "print({'sqlalchemy', 'psycopg', 'sqlite3', 'roost.models'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "none"
