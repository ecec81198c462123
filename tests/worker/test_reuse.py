"""Processes that run several tasks one after the other (``worker.isolation = "reuse"``)."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import msgspec
import pytest

from roost.worker import resting
from roost.worker.stay import may_share
from tests.worker.driving import Driver, make_spec

Make = Callable[..., Driver]
PID = "return os.getpid()"


@pytest.fixture
def reusing(make_driver: Make) -> Driver:
    """A driver whose processes run up to four tasks each, and rest for a minute."""
    return make_driver(most_tasks=4, rest_us=60_000_000)


def pid_of(driver: Driver, task_id: str = "t0") -> int:
    """Run a task that returns its pid."""
    outcome = driver.run(task_id)
    assert outcome.kind == "success", outcome.error
    return int(msgspec.json.decode(outcome.xcoms[0].value))


def test_one_process_runs_tasks_of_one_version_up_to_its_number(reusing: Driver) -> None:
    reusing.tasks(PID, PID)
    pids = [pid_of(reusing, f"t{number % 2}") for number in range(6)]
    assert len(set(pids[:4])) == 1
    assert len(set(pids[4:])) == 1
    assert pids[0] != pids[4]


def test_each_has_a_process_of_its_own_by_default(driver: Driver) -> None:
    driver.tasks(PID)
    assert len({pid_of(driver) for _ in range(3)}) == 3


def test_each_task_has_its_own_log(reusing: Driver) -> None:
    reusing.tasks("print('of the first')\n" + PID, "print('of the second')\n" + PID)
    assert pid_of(reusing, "t0") == pid_of(reusing, "t1")
    assert "of the first" in reusing.log("t0")
    assert reusing.log("t1").count("of the") == 1


def test_tasks_at_the_same_time_have_a_process_each(reusing: Driver) -> None:
    reusing.tasks(PID)  # none has ended before the hub turns
    running = [reusing.start() for _ in range(3)]
    outcomes = [reusing.outcome(one) for one in running]
    assert len({bytes(outcome.xcoms[0].value) for outcome in outcomes}) == 3


def test_another_version_has_another_process(reusing: Driver) -> None:
    reusing.tasks(PID)
    first = pid_of(reusing)
    reusing.tasks(PID, "pass")
    assert pid_of(reusing) != first


def test_a_task_that_defers_or_skips_leaves_its_process_to_others(reusing: Driver) -> None:
    reusing.tasks(
        PID,
        "from roost.exceptions import SkipTask\nraise SkipTask('not today')",
        "from roost.dag.deferral import TaskDeferred\nfrom roost.triggers import TimeDeltaTrigger\n"
        "from datetime import timedelta\n"
        "raise TaskDeferred(trigger=TimeDeltaTrigger(timedelta(1)), method_name='execute')",
    )
    first = pid_of(reusing)
    assert reusing.run("t1").kind == "skipped"
    assert reusing.run("t2").kind == "deferred"
    assert pid_of(reusing) == first


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('broken')",
        "os.chdir('/')",
        "os.environ['LEFT'] = 'behind'",
        "os.umask(0o077)",
        "os.open('/dev/null', os.O_RDONLY)",
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "sys.stdout = sys.stderr",
        "sys.path.insert(0, '/tmp')",
        "import logging; logging.getLogger().setLevel('ERROR')",
        "import threading; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "subprocess.Popen(['sleep', '60'])",
        "dag.held = bytearray(os.urandom(80 << 20))",
        "os.nice(1)",
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(7)[1]))",
        pytest.param(
            "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
            marks=pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one processor"),
        ),
        "signal.setitimer(signal.ITIMER_PROF, 60)",
        "import tempfile\nwith tempfile.TemporaryDirectory() as gone:\n    os.chdir(gone)",
    ],
)
def test_a_process_that_is_not_as_it_was_ends(reusing: Driver, body: str) -> None:
    """Nothing of a task may be seen by the next one but what it changed in modules."""
    reusing.tasks(body, PID)
    reusing.run("t0")
    before = set(reusing.processes())
    pid = pid_of(reusing, "t1")
    assert pid not in before
    reusing.until(lambda: len(reusing.processes()) == 3, "zygote, template and one that rests")
    assert pid_of(reusing, "t1") == pid


def test_a_task_is_ended_in_a_process_that_has_run_others(reusing: Driver) -> None:
    """Its time is over, or a user wants it: only that dispatch ends, and the process with it."""
    reusing.tasks(PID, "time.sleep(60)")
    first = pid_of(reusing)
    outcome = reusing.run("t1", execution_timeout_us=200_000)
    assert outcome.kind == "failed"
    assert "execution_timeout" in (outcome.error or "")
    second = pid_of(reusing)
    assert second != first
    wished = reusing.start("t1")
    reusing.hub.terminate(wished, "wished")
    assert reusing.outcome(wished).kind == "lost"
    assert pid_of(reusing) not in (first, second)


def test_a_crash_fails_the_task_that_ran_and_no_other(reusing: Driver) -> None:
    """Reliability 2a."""
    reusing.tasks(PID, "os.kill(os.getpid(), signal.SIGSEGV)")
    first = pid_of(reusing)
    outcome = reusing.run("t1")
    assert outcome.kind == "failed"
    assert "signal 11" in (outcome.error or "")
    assert pid_of(reusing) != first


def test_one_that_is_killed_while_it_rests_is_not_missed(reusing: Driver) -> None:
    """A dispatch that it was given, but never took, is lost: handed over anew without a try."""
    reusing.tasks(PID)
    for _ in range(20):
        first = pid_of(reusing)
        os.kill(first, signal.SIGKILL)
        outcome = reusing.run()
        assert outcome.kind in ("lost", "success"), outcome.error


def test_one_that_is_stopped_and_killed_with_a_task_unread_loses_it(reusing: Driver) -> None:
    """The same, and no luck in it: the task is on its line for sure when it ends."""
    reusing.tasks(PID)
    first = pid_of(reusing)
    os.kill(first, signal.SIGSTOP)
    given = reusing.start()
    os.kill(first, signal.SIGKILL)
    outcome = reusing.outcome(given)
    assert (outcome.kind, outcome.error) == (
        "lost",
        "its process had ended before it took the task",
    )
    assert pid_of(reusing) != first


def test_one_that_ends_as_it_is_given_a_task_loses_it(
    reusing: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, where it was still there a moment before: the look at its line comes too early."""
    reusing.tasks(PID)
    first = pid_of(reusing)
    os.kill(first, signal.SIGKILL)
    assert select.select([reusing.hub], [], [], 30)[0], "the end of its line"
    monkeypatch.setattr(resting, "_is_quiet", lambda _line: True)
    outcome = reusing.outcome(reusing.start())
    assert (outcome.kind, outcome.error) == (
        "lost",
        "its process had ended before it took the task",
    )


def test_one_that_is_killed_in_a_task_fails_it(reusing: Driver) -> None:
    """Reliability 2a: it had begun, so a try is gone, as in a process of its own."""
    reusing.tasks(PID, "os.kill(os.getpid(), signal.SIGKILL)")
    pid_of(reusing)
    outcome = reusing.run("t1")
    assert outcome.kind == "failed"
    assert "killed by signal 9" in (outcome.error or "")


def test_the_templates_death_takes_those_that_rest_with_it(reusing: Driver) -> None:
    reusing.tasks(PID)
    first = pid_of(reusing)
    zygote = min(reusing.processes())
    os.kill(zygote, signal.SIGKILL)
    reusing.until(lambda: reusing.processes() == [], "the end of all")
    # Ordered before the hub has heard of it a dispatch is lost, and handed over anew.
    assert reusing.run().kind in ("lost", "success")
    assert pid_of(reusing) != first


def test_one_whose_line_is_still_open_when_its_end_is_known_gets_no_task(
    reusing: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed lets go of its line a moment after its memory."""
    monkeypatch.setattr(resting.Resting, "_hear", lambda _self, _process: None)
    monkeypatch.setattr(resting, "_is_quiet", lambda _line: True)
    reusing.tasks(PID)
    first = pid_of(reusing)
    os.kill(min(reusing.processes()), signal.SIGKILL)
    reusing.until(lambda: reusing.processes() == [], "the end of all")
    assert reusing.run().kind in ("lost", "success")
    assert pid_of(reusing) != first


def test_those_that_rest_too_long_end_and_then_their_template(make_driver: Make) -> None:
    driver = make_driver(most_tasks=4, rest_us=50_000, template_idle_us=50_000)
    driver.tasks(PID)
    pid_of(driver)
    driver.until(lambda: driver.processes() == [], "process, template and zygote to be let go")
    assert pid_of(driver)


def test_who_runs_as_another_user_or_calls_back_shares_nothing() -> None:
    assert may_share(make_spec(1, "t0"))
    assert not may_share(make_spec(1, "t0", run_as_user="nobody"))
