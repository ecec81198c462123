"""How tasks are ended, and that nothing of them is left, however they resist."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.support import detached
from roost.worker.orphans import mark_of
from tests.support.waiting import wait_until
from tests.worker.driving import Driver

QUICK = {"kill_grace_us": 300_000, "timeout_slack_us": 100_000}

DETACHED = """\
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
"""
"""A daemon by the book: its parent is gone and its session is its own; no exec marks it."""


def tell(path: Path) -> str:
    """A line of a task that says that its body has begun."""
    return f"open({str(path)!r}, 'w').close()\n"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_sigterm_runs_on_kill_and_ends_the_task(driver: Driver, tmp_path: Path) -> None:
    begun, killed = tmp_path / "begun", tmp_path / "killed"
    driver.source += (
        "from roost.operators import BaseOperator\n"
        "class Slow(BaseOperator):\n"
        "    def execute(self, context):\n"
        f"        {tell(begun)}"
        "        time.sleep(1000)\n"
        "    def on_kill(self):\n"
        f"        {tell(killed)}"
        "Slow(task_id='slow', dag=dag)\n"
    )
    dispatch_id = driver.start("slow")
    driver.until(begun.exists, "the task to begin")
    driver.hub.terminate(dispatch_id, "timeout")
    assert driver.outcome(dispatch_id).kind == "failed"
    assert killed.exists()


def test_a_task_that_ignores_sigterm_is_killed(
    make_driver: Callable[..., Driver], tmp_path: Path
) -> None:
    """Reliability 2b: SIGTERM, then SIGKILL to the whole group."""
    driver = make_driver(**QUICK)
    begun = tmp_path / "begun"
    driver.tasks(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sh', '-c', 'trap : TERM; while :; do sleep 1; done'])\n"
        f"{tell(begun)}"
        "time.sleep(1000)"
    )
    dispatch_id = driver.start()
    driver.until(begun.exists, "the task to begin")
    driver.hub.terminate(dispatch_id, "preempted")
    outcome = driver.outcome(dispatch_id)
    assert outcome.kind == "lost"
    assert outcome.error == "preempted: the worker was stopped"
    assert outcome.exit_code == -signal.SIGKILL
    marks = [mark_of(pid, "ROOST_TASK_MARK") for pid in driver.processes()]
    assert set(marks) == {b"%020d" % 0}, "only the zygote and the template may be left"


@pytest.mark.parametrize(
    "leave",
    [
        "subprocess.Popen(['sleep', '1000'])",
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
        "subprocess.run(['sh', '-c', 'setsid sleep 1000 & setsid sleep 1000 &'])",
        DETACHED,
    ],
    ids=["child", "setsid", "setsid grandchildren", "daemon without exec"],
)
@pytest.mark.parametrize("end", ["return 1", "raise ValueError", "os._exit(1)"])
def test_nothing_of_a_task_outlives_it(driver: Driver, leave: str, end: str) -> None:
    """S18: after its end nothing of a task is left, whatever session it fled to."""
    driver.tasks(f"{leave}\n{end}")
    driver.run()
    marks = [mark_of(pid, "ROOST_TASK_MARK") for pid in driver.processes()]
    assert marks == [b"%020d" % 0] * 2


def test_what_a_running_task_has_daemonised_is_left_to_it(driver: Driver, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    pid_file = tmp_path / "pid"
    driver.tasks(
        f"subprocess.run(['sh', '-c', 'setsid sleep 1000 & echo $! > {pid_file}'])\n"
        f"{tell(begun)}"
        f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)",
        "return 1",
    )
    long = driver.start("t0")
    driver.until(begun.exists, "the task to begin")
    for _ in range(3):
        other = driver.start("t1")
        assert driver.outcome(other).kind == "success"
    driver.until(lambda: driver.hub.running == 1, "the end of the others")
    daemon = int(pid_file.read_text())
    assert alive(daemon)
    go.touch()
    driver.outcome(long)
    driver.until(lambda: driver.hub.running == 0, "the end of the task")
    assert not alive(daemon)


def test_execution_timeout_holds_against_a_task_that_resists(
    make_driver: Callable[..., Driver],
) -> None:
    """D7, invariant S14: enforced from outside when the task's own code prevents it from within."""
    driver = make_driver(**QUICK)
    driver.tasks(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})\n"
        "time.sleep(1000)"
    )
    outcome = driver.run(execution_timeout_us=200_000)
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert outcome.error.startswith("execution_timeout of 0.2 s is over; the task was killed")


def test_execution_timeout_counts_what_earlier_parts_of_the_try_used(driver: Driver) -> None:
    """D7: run time is summed over every resume."""
    driver.tasks("time.sleep(1000)")
    outcome = driver.run(execution_timeout_us=60_000_000, run_us=59_900_000)
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert "execution_timeout (60 s)" in outcome.error


def test_a_revoked_task_ends_without_an_outcome(
    make_driver: Callable[..., Driver], tmp_path: Path
) -> None:
    """S107: others have ended the dispatch; whatever the task says is not wanted."""
    driver = make_driver(**QUICK)
    begun = tmp_path / "begun"
    driver.tasks(f"{tell(begun)}time.sleep(1000)")
    dispatch_id = driver.start()
    driver.until(begun.exists, "the task to begin")
    driver.hub.kill(dispatch_id, "revoked")
    driver.until(lambda: driver.hub.running == 0, "the end of the task")
    assert driver.outcomes == {}


def test_a_dispatch_that_is_still_waiting_for_its_template_can_be_stopped(
    driver: Driver,
) -> None:
    driver.source = "import time\ntime.sleep(0.3)\n" + driver.source
    driver.tasks("return 1")
    driver.source = driver.source.replace("dag = DAG", "time.sleep(0.3)\ndag = DAG")
    dispatch_id = driver.start()
    driver.hub.terminate(dispatch_id, "preempted")
    driver.turn()
    assert driver.outcomes[dispatch_id].kind == "lost"
    assert driver.hub.running == 0


def test_closing_the_hub_ends_everything_and_says_so(driver: Driver, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    driver.tasks(
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"{tell(begun)}time.sleep(1000)"
    )
    dispatch_id = driver.start()
    driver.until(begun.exists, "the task to begin")
    driver.close()
    assert [ended.outcome.kind for ended in driver.hub.ended] == ["lost"]
    assert driver.hub.ended[0].spec.dispatch_id == dispatch_id
    wait_until(lambda: driver.processes() == [], what="the end of all processes")


def test_a_detached_command_outlives_task_template_and_worker(
    driver: Driver, tmp_path: Path
) -> None:
    """What SubprocessOperator starts is its own to end; invariant S18 holds for all the rest."""
    folder, stray = tmp_path / "command", tmp_path / "stray"
    driver.tasks(
        "from roost.support import detached\n"
        "script = 'setsid sleep 1000 & sleep 1000'\n"
        f"detached.start(['bash', '-c', script], {str(folder)!r}, environ=os.environ)\n"
        "left = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"open({str(stray)!r}, 'w').write(str(left.pid))\n",
        "pass",
    )
    driver.run("t0")
    process = detached.find(str(folder))
    assert process is not None
    assert not alive(int(stray.read_text()))
    driver.run("t1")  # its end sweeps again
    assert process.is_alive()
    driver.close()
    assert process.is_alive()
    assert driver.processes() == []
    detached.kill(process.token, 0)
    assert not process.is_alive()
