"""``roost worker`` as a process, with a real scheduler, on both databases."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roost.worker.leftovers import find_leftovers, kill_leftovers
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

HEADER = """\
import os, subprocess, time
from datetime import datetime
from roost.dag import DAG, Connection, Variable, get_current_context, task

with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
"""


@pytest.fixture
def run(
    daemons: Daemons, database_url: str, roost_home: Path
) -> Callable[[str], Callable[[], dict[str, Any]]]:
    """Write a DAG with this body, start a scheduler, trigger a run; gives its task states."""

    def start(body: str) -> Callable[[], dict[str, Any]]:
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        (roost_home / "dags" / "d.py").write_text(HEADER + lines + "\n")
        daemons.start("scheduler")
        wait_until(
            lambda: fetch(database_url, "SELECT 1 FROM dag WHERE dag_id = 'd'"), 60, "the DAG"
        )
        daemons.cli("dags", "trigger", "d")

        def states() -> dict[str, Any]:
            found = fetch(database_url, "SELECT task_id, state FROM task_instance")
            return {row["task_id"]: row["state"] for row in found}

        return states

    return start


def token(url: str) -> str:
    (row,) = fetch(url, "SELECT token FROM job WHERE kind = 'worker' ORDER BY id DESC LIMIT 1")
    return str(row["token"])


def test_values_travel_between_tasks_and_from_variables(
    run: Callable[[str], Callable[[], dict[str, Any]]], daemons: Daemons, database_url: str
) -> None:
    """S54-S58, S61: XComs, Variables and Connections are served by the supervisor (H26)."""
    daemons.cli("connections", "add", "secret", "--conn-uri", "http://u:canary-1@h")
    fetch(database_url, "INSERT INTO variable (key, value) VALUES ('colour', 'blue')")
    fetch(
        database_url,
        "INSERT INTO connection (conn_id, conn_type, host, port) VALUES ('wh', 'pg', 'h1', 5)",
    )
    states = run(
        "@task\n"
        "def make():\n"
        "    ti = get_current_context()['ti']\n"
        "    ti.xcom_push('extra', [1, 2])\n"
        "    assert ti.xcom_pull(task_ids='make', key='extra') == [1, 2]\n"
        "    return {'rows': 42}\n"
        "@task\n"
        "def use(made):\n"
        "    ti = get_current_context()['ti']\n"
        "    assert made == {'rows': 42}, made\n"
        "    both = ti.xcom_pull(task_ids=['make', 'nobody'], key='extra')\n"
        "    assert both == [[1, 2], None], both\n"
        "    assert Variable.get('colour') == 'blue'\n"
        "    Variable.set('seen', 'yes')\n"
        "    assert Variable.get('none', default_var=None) is None\n"
        "    conn = Connection.get('wh')\n"
        "    assert (conn.host, conn.port) == ('h1', 5)\n"
        "    assert Connection.get('secret').password == 'canary-' + '1'\n"
        "    print('it is', Connection.get('secret').password)\n"
        "    assert 'ROOST__SECURITY__ENCRYPTION_KEY' not in os.environ\n"
        "use(make())\n"
    )
    daemons.start("worker")
    wait_until(
        lambda: states().get("use") not in ("none", "scheduled", "queued", "running"),
        60,
        "the end of the run",
    )
    assert states() == {"make": "success", "use": "success"}
    assert daemons.cli("variables", "get", "seen").stdout == "yes\n"
    (encrypted,) = fetch(database_url, "SELECT is_encrypted FROM variable WHERE key = 'seen'")
    assert encrypted["is_encrypted"] in (1, True)
    (log,) = daemons.home.glob("logs/**/task_id=use/attempt=1.log")
    assert "it is ***" in log.read_text()
    for file in daemons.home.glob("**/*.log"):
        assert "canary-1" not in file.read_text(), file


def test_a_stopping_worker_lets_its_task_finish(
    run: Callable[[str], Callable[[], dict[str, Any]]], daemons: Daemons, tmp_path: Path
) -> None:
    """Reliability 2a, worker SIGTERM: drain."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    states = run(
        "@task\n"
        "def slow():\n"
        f"    open({str(begun)!r}, 'w').close()\n"
        f"    while not os.path.exists({str(go)!r}):\n"
        "        time.sleep(0.01)\n"
        "slow()"
    )
    worker = daemons.start("worker")
    wait_until(begun.exists, what="the task to begin")
    worker.signal(signal.SIGTERM)
    worker.wait_notified("STOPPING=1")
    go.touch()
    assert worker.wait() == 0
    wait_until(lambda: states() == {"slow": "success"}, what="the success")


@pytest.mark.parametrize("twice", [False, True], ids=["after the time-out", "second signal"])
def test_what_outlasts_the_drain_is_handed_over_anew(
    run: Callable[[str], Callable[[], dict[str, Any]]],
    daemons: Daemons,
    database_url: str,
    tmp_path: Path,
    twice: bool,
) -> None:
    """Preempted: no try is consumed (invariant S11), and nothing of the task is left."""
    begun = tmp_path / "begun"
    states = run(
        "@task\n"
        "def slow():\n"
        f"    first = not os.path.exists({str(begun)!r})\n"
        f"    open({str(begun)!r}, 'w').close()\n"
        "    if first:\n"
        "        subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "        time.sleep(1000)\n"
        "slow()"
    )
    seconds = "60" if twice else "0.2"
    worker = daemons.start("worker", env={"ROOST__WORKER__DRAIN_TIMEOUT": seconds})
    wait_until(begun.exists, what="the task to begin")
    mark = token(database_url)
    worker.signal(signal.SIGTERM)
    if twice:
        worker.wait_notified("STOPPING=1")
        worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert find_leftovers(mark) == []
    daemons.start("worker")
    wait_until(lambda: states() == {"slow": "success"}, 60, "the success of the second dispatch")
    [row] = fetch(database_url, "SELECT try_number, losses FROM task_instance")
    assert row == {"try_number": 1, "losses": 1}


def test_nothing_outlives_a_killed_worker(
    run: Callable[[str], Callable[[], dict[str, Any]]],
    daemons: Daemons,
    database_url: str,
    tmp_path: Path,
) -> None:
    """Reliability 2a, worker SIGKILL: its tasks die with it, the rest before anything is redone.

    H8, S106: noticed at once on one host, not after a heartbeat time-out.
    """
    begun = tmp_path / "begun"
    run(
        "@task\n"
        "def slow():\n"
        "    subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"    open({str(begun)!r}, 'w').close()\n"
        "    time.sleep(1000)\n"
        "slow()"
    )
    worker = daemons.start("worker")
    wait_until(begun.exists, what="the task to begin")
    mark = token(database_url)
    assert len(find_leftovers(mark)) >= 4  # zygote, template, task, its detached child
    worker.kill()
    wait_until(
        lambda: fetch(database_url, "SELECT 1 FROM task_instance WHERE losses = 1"),
        what="the scheduler to notice",
    )
    assert find_leftovers(mark) == []


def test_a_dispatch_that_others_ended_is_killed(
    run: Callable[[str], Callable[[], dict[str, Any]]],
    daemons: Daemons,
    database_url: str,
    tmp_path: Path,
) -> None:
    """S107: the worker compares what it runs with what it holds, at every heartbeat."""
    begun = tmp_path / "begun"
    run(
        "@task\n"
        "def slow():\n"
        f"    open({str(begun)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(1000)\n"
        "slow()"
    )
    worker = daemons.start("worker")
    pid = int(wait_until(lambda: begun.exists() and begun.read_text(), what="the task to begin"))
    assert pid in worker.family()
    fetch(database_url, "DELETE FROM dispatch")
    wait_until(lambda: pid not in worker.family(), what="the end of the task")


def test_s107_a_task_whose_row_others_edited_is_killed(
    run: Callable[[str], Callable[[], dict[str, Any]]],
    daemons: Daemons,
    database_url: str,
    tmp_path: Path,
) -> None:
    """S107: process and heartbeat exist, but the task instance does not run in the database."""
    begun = tmp_path / "begun"
    states = run(
        "@task\n"
        "def slow():\n"
        f"    open({str(begun)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(1000)\n"
        "slow()"
    )
    worker = daemons.start("worker")
    pid = int(wait_until(lambda: begun.exists() and begun.read_text(), what="the task to begin"))
    fetch(database_url, "UPDATE task_instance SET state = 'failed'")
    wait_until(lambda: pid not in worker.family(), what="the end of the task")
    assert "its task was moved by others" in worker.output
    wait_until(
        lambda: not fetch(database_url, "SELECT 1 FROM dispatch WHERE ended_at IS NULL"),
        60,
        "the worker to give the dispatch up",
    )
    assert states() == {"slow": "failed"}


def test_leftovers_are_only_what_carries_the_token() -> None:
    assert find_leftovers("no such token") == []
    assert kill_leftovers("no such token") == []
