"""A task that runs as another user, and the refusals where that cannot be (issue point: knobs)."""

from __future__ import annotations

import os
import pwd

import msgspec
import pytest

from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError, RoostException
from roost.operators import EmptyOperator
from roost.worker.identity import become
from tests.dag.case import a_dag
from tests.worker.driving import Driver

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch users")

_WHO = """
import ctypes
print('still in the log', flush=True)
signal_number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signal_number))  # PR_GET_PDEATHSIG
whoami = subprocess.run(['id', '-un'], capture_output=True, text=True).stdout.strip()
names = [os.environ[name] for name in ('HOME', 'USER', 'LOGNAME')]
ids = [list(os.getresuid()), list(os.getresgid()), os.getgroups()]
return [*ids, names, whoami, signal_number.value]
"""


@as_root
def test_the_task_is_that_user_for_good(driver: Driver) -> None:
    """Ids, groups, environment and children; the log still takes its output."""
    nobody = pwd.getpwnam("nobody")
    driver.tasks(_WHO)
    outcome = driver.run(run_as_user="nobody")
    assert outcome.kind == "success", outcome.error
    said = msgspec.json.decode(outcome.xcoms[0].value)
    uids, gids, groups, names, whoami, signal_number = said
    assert set(uids) == {nobody.pw_uid}
    assert set(gids) == {nobody.pw_gid}
    assert groups == sorted(os.getgrouplist("nobody", nobody.pw_gid))
    assert names == [nobody.pw_dir, "nobody", "nobody"]
    assert whoami == "nobody"
    assert signal_number == 9  # it still ends with its template
    assert "still in the log" in driver.log()


@as_root
def test_a_task_of_another_user_is_killed_like_any(driver: Driver) -> None:
    """Its time-out holds, and nothing of it is left."""
    driver.tasks("signal.pause()")
    outcome = driver.run(run_as_user="nobody", execution_timeout_us=200_000)
    assert outcome.kind == "failed"
    assert "execution_timeout" in (outcome.error or "")


@as_root
def test_who_is_not_root_may_not_switch(driver: Driver) -> None:
    """One line: the user, what is missing, and the remedy."""
    driver.tasks(
        "from roost.worker.identity import become\n"
        "try:\n    become('daemon', os.getppid())\n"
        "except Exception as error:\n    return str(error)"
    )
    outcome = driver.run(run_as_user="nobody")
    said = msgspec.json.decode(outcome.xcoms[0].value)
    assert said == (
        "run_as_user 'daemon': the worker runs as uid 65534, which may not switch users; "
        "start the worker as root, or leave run_as_user out"
    )


def test_an_unknown_user_fails_the_task_before_its_code(driver: Driver) -> None:
    """One line that names the host; nothing of the task has run."""
    driver.tasks("print('must not run')")
    outcome = driver.run(run_as_user="nobody-at-all")
    assert outcome.kind == "failed"
    assert (outcome.error or "").startswith("task 't0': run_as_user 'nobody-at-all': host ")
    assert "has no such user" in (outcome.error or "")
    assert "\n" not in (outcome.error or "")
    assert "must not run" not in driver.log()
    assert "has no such user" in driver.log()


def test_the_workers_own_user_needs_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """run_as_user of the user that the worker is anyway."""
    for name in ("HOME", "USER", "LOGNAME", "SHELL"):
        monkeypatch.setenv(name, "x")  # so that it is put back
    become(pwd.getpwuid(os.geteuid()).pw_name, os.getppid())
    with pytest.raises(RoostException, match="has no such user"):
        become("nobody-at-all", os.getppid())


def test_it_is_serialized_and_checked() -> None:
    """The knob reaches the scheduler; what is no name is refused at parse."""
    with a_dag(default_args={"run_as_user": "etl"}) as dag:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", run_as_user=None)
    assert [task.run_as_user for task in serialize_dag(dag).tasks] == ["etl", None]
    with pytest.raises(DagError, match="task 'c': run_as_user must be a name"):
        EmptyOperator(task_id="c", run_as_user=7)  # type: ignore[arg-type]
