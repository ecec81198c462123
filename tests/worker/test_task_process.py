"""What a task process is given, what it says, and how its end is told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import msgspec
import pytest

from roost.support.logfile import log_path
from roost.support.task_requests import Reply, VariableGet, VariableSet
from tests.worker.driving import Driver


def test_a_return_value_becomes_an_xcom(driver: Driver) -> None:
    """S55."""
    driver.tasks("return {'rows': 42}")
    outcome = driver.run()
    assert outcome.kind == "success"
    [write] = outcome.xcoms
    assert (write.key, msgspec.json.decode(write.value)) == ("return_value", {"rows": 42})


def test_an_xcom_of_nearly_a_megabyte_arrives_whole(driver: Driver) -> None:
    driver.tasks("return 'x' * 1_000_000")
    [write] = driver.run().xcoms
    assert len(msgspec.json.decode(write.value)) == 1_000_000


def test_output_and_logging_go_to_the_log_of_the_try(driver: Driver) -> None:
    driver.tasks(
        "import logging\n"
        "print('printed')\n"
        "logging.getLogger('mine').info('logged')\n"
        "subprocess.run(['echo', 'from a child'])\n"
        "print('to stderr', file=sys.stderr)"
    )
    driver.run()
    log = driver.log()
    assert re.search(r"^\[\d{4}-\d\d-\d\dT[\d:.]+\+0000\] .*INFO - logged$", log, re.M)
    assert {"printed", "from a child", "to stderr"} <= set(log.splitlines())


def test_a_resume_appends_to_the_log_of_its_try(driver: Driver) -> None:
    driver.tasks("print('once more')")
    driver.run()
    driver.run()
    assert driver.log().count("once more") == 2


def test_a_failure_carries_its_traceback(driver: Driver) -> None:
    driver.tasks("raise ValueError('broken')")
    outcome = driver.run()
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert "ValueError: broken" in outcome.error
    assert "d.py" in outcome.error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("os._exit(3)", "exited with code 3 without a result"),
        ("os._exit(0)", "exited with code 0 without a result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9 (maybe out of memory)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11 (SIGSEGV)"),
        ("os.closerange(3, 100); os._exit(0)", "exited with code 0 without a result"),
        ("os.closerange(0, 100)", "exited with code 1 without a result"),
    ],
)
def test_an_end_without_a_result_is_a_failure_that_says_how(
    driver: Driver, body: str, error: str
) -> None:
    """Reliability 2a, task process: failed with the signal, at once.

    H9: a process that ended while its task instance counts as running was ended from outside.
    """
    driver.tasks(body)
    outcome = driver.run()
    assert (outcome.kind, outcome.error) == ("failed", error)


def test_a_task_that_speaks_nonsense_harms_only_itself(driver: Driver) -> None:
    driver.tasks(
        "import socket\n"
        "for number in range(3, 50):\n"
        "    try:\n"
        "        os.write(number, b'\\xff' * 100)\n"
        "    except OSError:\n"
        "        pass",
        "return 1",
    )
    assert driver.run("t0").kind == "failed"
    assert driver.run("t1").kind == "success"


def test_a_task_sees_no_database(driver: Driver) -> None:
    """Design 2: no credentials and no driver in a process that runs user code."""
    driver.tasks(
        "modules = [n for n in sys.modules if n.split('.')[0] in "
        "('sqlalchemy', 'alembic', 'psycopg', 'sqlite3', 'click', 'anyio')]\n"
        "return {'modules': modules, 'environ': dict(os.environ)}"
    )
    [write] = driver.run().xcoms
    seen = msgspec.json.decode(write.value)
    assert seen["modules"] == []
    assert "canary" not in str(seen["environ"])


def test_a_plain_task_carries_nothing_that_makes_its_fork_dear(driver: Driver) -> None:
    driver.tasks("return sorted({'asyncio', 'jinja2', 'multiprocessing'} & set(sys.modules))")
    [write] = driver.run().xcoms
    assert bytes(write.value) == b"[]"


def test_a_task_leads_a_process_group_of_its_own(driver: Driver) -> None:
    driver.tasks("return [os.getpid(), os.getpgid(0), os.getsid(0)]")
    [write] = driver.run().xcoms
    pid, group, session = msgspec.json.decode(write.value)
    assert pid == group == session != os.getpgid(0)


def test_a_task_inherits_no_line_but_its_own(driver: Driver) -> None:
    """A task that held another's line would keep it open, or answer in its name."""
    driver.tasks(
        "sockets = []\n"
        "for number in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        target = os.readlink(f'/proc/self/fd/{number}')\n"
        "    except OSError:\n"
        "        continue\n"
        "    if target.startswith('socket:'):\n"
        "        sockets.append(target)\n"
        "return sockets"
    )
    ids = [driver.start(map_index=number) for number in range(8)]
    seen: list[str] = []
    for dispatch_id in ids:
        [write] = driver.outcome(dispatch_id).xcoms
        sockets = msgspec.json.decode(write.value)
        assert len(sockets) == 1
        seen += sockets
    assert len(set(seen)) == 8


def test_tasks_draw_different_random_numbers(driver: Driver) -> None:
    driver.tasks("import random\nreturn random.random()")
    values = {bytes(driver.run().xcoms[0].value) for _ in range(4)}
    assert len(values) == 4


def test_a_request_is_answered_whatever_its_size(driver: Driver) -> None:
    """S56: more than the socket takes at once goes through in both directions."""
    driver.tasks(
        "from roost.dag import Variable\n"
        "Variable.set('big', 'y' * 900_000)\n"
        "return len(Variable.get('big'))"
    )
    dispatch_id = driver.start()
    driver.until(lambda: driver.asked, "the first request")
    first = driver.asked.pop()
    assert first.spec.dispatch_id == dispatch_id
    assert isinstance(first.request, VariableSet)
    assert len(first.request.value) == 900_000
    driver.hub.reply(dispatch_id, Reply())
    driver.until(lambda: driver.asked, "the second request")
    assert driver.asked.pop().request == VariableGet("big")
    driver.hub.reply(dispatch_id, Reply(text="z" * 3_000_000))
    [write] = driver.outcome(dispatch_id).xcoms
    assert bytes(write.value) == b"3000000"


def test_a_large_spec_reaches_the_task(driver: Driver) -> None:
    driver.tasks(
        "from roost.dag import get_current_context\n"
        "return len(get_current_context()['dag_run'].conf['blob'])"
    )
    conf = msgspec.Raw(msgspec.json.encode({"blob": "c" * 2_000_000}))
    [write] = driver.run(conf=conf).xcoms
    assert bytes(write.value) == b"2000000"


def test_many_tasks_end_once_each(driver: Driver) -> None:
    driver.tasks("pass")
    ids = [driver.start(map_index=number) for number in range(100)]
    for dispatch_id in ids:
        assert driver.outcome(dispatch_id).kind == "success"
    driver.until(lambda: driver.hub.running == 0, "the end of all processes")


def test_a_log_that_cannot_be_written_does_not_fail_the_task(
    make_driver: Callable[..., Driver],
) -> None:
    """Reliability 2b, log disk full: the task runs on."""
    driver = make_driver(log_folder="/proc/nowhere")
    driver.tasks("print('into the void')\nreturn 1")
    assert driver.run().kind == "success"


def test_log_paths_stay_below_their_folder() -> None:
    path = log_path("/logs", "../../etc", "manual__2026-01-01T00:00:00+00:00", "a/b", 3, 2)
    assert path == (
        "/logs/dag_id=..%2F..%2Fetc/run_id=manual__2026-01-01T00:00:00+00:00/"
        "task_id=a%2Fb/map_index=3/attempt=2.log"
    )
    assert len(log_path("", "é" * 250, "r", "t", -1, 1).split("/")[1].encode()) <= 255
