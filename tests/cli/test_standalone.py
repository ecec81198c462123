"""``roost standalone`` and ``dags trigger --wait``, with real processes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

DAG = """
import time
from datetime import datetime, timedelta
from pathlib import Path
from roost.dag import DAG
from roost.operators import BaseOperator, BashOperator, PythonOperator
from roost.triggers import TimeDeltaTrigger

class Nap(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(milliseconds=200)), method_name="back")
    def back(self, context, event):
        print("woke up")

def linger(dag_run):
    Path(dag_run.conf["started"]).touch()
    time.sleep(dag_run.conf["seconds"])

start = datetime(2026, 1, 1)
with DAG("good", schedule=None, start_date=start):
    Nap(task_id="nap") >> BashOperator(task_id="say", bash_command="echo hello")
with DAG("bad", schedule=None, start_date=start):
    BashOperator(task_id="boom", bash_command="echo oh; exit 3")
with DAG("slow", schedule=None, start_date=start):
    PythonOperator(task_id="linger", python_callable=linger)
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Daemons]:
    """Commands in a home that holds a DAG file and nothing else."""
    home = tmp_path / "home"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "mine.py").write_text(DAG)
    started = Daemons(home)
    yield started
    started.close()


def start(fleet: Daemons) -> Daemon:
    """A standalone that is ready and has parsed the DAG file."""
    standalone = fleet.start("standalone")
    wait_until(lambda: "good" in fleet.cli("dags", "list").stdout, what="the DAG file")
    return standalone


def pids(standalone: Daemon) -> dict[str, int]:
    """The last pid of each daemon, as standalone told it."""
    found = re.findall(r"^  (\w+) +pid (\d+)", standalone.output, re.MULTILINE)
    return {kind: int(pid) for kind, pid in found}


def test_from_nothing_to_a_finished_run_and_back(fleet: Daemons) -> None:
    standalone = start(fleet)
    assert (fleet.home / "roost.toml").exists()
    key = fleet.home / "encryption.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert f"{key} made, encrypts what is secret: keep a copy" in standalone.output
    assert set(pids(standalone)) == {"scheduler", "triggerer", "worker"}
    done = fleet.cli("dags", "trigger", "good", "--run-id", "r", "--wait")
    lines = done.stdout.splitlines()
    assert lines[0] == "triggered good: run r"
    words = [line.split()[1:3] for line in lines[1:-1]]
    assert [state for name, state in words if name == "nap"] == [
        "running", "deferred", "running", "success",
    ]  # fmt: skip
    assert words[-1] == ["run", "success"]
    assert re.fullmatch(r"run r success after [\d.]+ s: 2 success", lines[-1])
    assert fleet.cli("tasks", "logs", "good", "r", "nap").stdout.endswith("woke up\n")
    wait_until(lambda: "good r (run)" in standalone.output, what="the end of the run")
    assert "good r say" in standalone.output
    assert fleet.json("triggers", "list") == []
    assert standalone.stop() == 0
    assert standalone.output.endswith("stopped\n")
    assert fleet.json("info")[-1]["value"] == "none running"


def test_wait_tells_a_failure_and_how_to_see_it(fleet: Daemons) -> None:
    start(fleet)
    failed = fleet.cli("dags", "trigger", "bad", "--run-id", "r", "--wait", check=False)
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1] == ("failed: boom (try 1); roost tasks logs bad r boom")
    assert "oh" in fleet.cli("tasks", "logs", "bad", "r", "boom").stdout


def test_ctrl_c_ends_the_waiting_and_not_the_run(fleet: Daemons) -> None:
    fleet.cli("db", "migrate")
    daemon = fleet.start("scheduler")
    wait_until(lambda: "good" in fleet.cli("dags", "list").stdout, what="the DAG file")
    fleet.cli("dags", "pause", "good")
    waiting = fleet.start("dags", "trigger", "good", "--run-id", "r", "--wait", ready=False)
    wait_until(lambda: "triggered good" in waiting.output, what="the run")
    waiting.signal(signal.SIGINT)
    assert waiting.wait() == 130
    assert "the run goes on; `roost dags state good r` tells how it is" in waiting.output
    assert daemon.process.poll() is None
    assert fleet.cli("dags", "state", "good", "r").stdout == "queued\n"


def test_a_daemon_that_dies_is_started_again(fleet: Daemons) -> None:
    standalone = start(fleet)
    before = pids(standalone)
    for kind in ("worker", "scheduler", "triggerer"):
        os.kill(before[kind], signal.SIGKILL)
        wait_until(
            lambda kind=kind: pids(standalone)[kind] != before[kind],  # type: ignore[misc]
            what=f"a new {kind}",
        )
    assert standalone.output.count("starting it again") == 3
    assert fleet.cli("dags", "trigger", "good", "--wait").returncode == 0


def linger(fleet: Daemons, tmp_path: Path, seconds: float) -> None:
    """Start the task that takes so long, and wait until it runs."""
    started = tmp_path / "started"
    conf = f'{{"started": "{started}", "seconds": {seconds}}}'
    fleet.cli("dags", "trigger", "slow", "--run-id", "r", "--conf", conf)
    wait_until(started.exists, what="the task")


def test_the_first_signal_lets_tasks_finish(fleet: Daemons, tmp_path: Path) -> None:
    standalone = start(fleet)
    linger(fleet, tmp_path, 1)
    standalone.signal(signal.SIGINT)
    assert standalone.wait() == 0
    assert fleet.cli("tasks", "state", "slow", "r", "linger").stdout == "success\n"
    assert fleet.cli("dags", "state", "slow", "r").stdout == "success\n"


def test_the_second_signal_does_not(fleet: Daemons, tmp_path: Path) -> None:
    standalone = start(fleet)
    linger(fleet, tmp_path, 1000)
    standalone.signal(signal.SIGTERM)
    wait_until(lambda: "once more ends them" in standalone.output)
    standalone.signal(signal.SIGTERM)
    assert standalone.wait() == 0
    assert "stopping at once" in standalone.output


def test_the_daemons_stop_when_standalone_is_killed(fleet: Daemons) -> None:
    standalone = start(fleet)
    assert len(standalone.family()) >= 3
    standalone.kill()
    wait_until(lambda: fleet.json("info")[-1]["value"] == "none running", what="the daemons' end")


def test_a_second_one_on_the_same_database_says_why_it_ends(fleet: Daemons) -> None:
    start(fleet)
    second = fleet.cli("standalone", check=False)
    assert second.returncode == 2
    assert "SQLite admits one scheduler" in second.stderr


def test_a_new_schema_is_made_but_a_newer_one_refused(fleet: Daemons) -> None:
    fleet.cli("db", "migrate")
    fetch(f"sqlite:///{fleet.home}/roost.db", "UPDATE alembic_version SET version_num = '9999'")
    refused = fleet.cli("standalone", check=False)
    assert refused.returncode == 2
    assert "install the newer Roost" in refused.stderr


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "logs").symlink_to(tmp_path / "file" / "logs")
    fleet = Daemons(tmp_path / "home")
    try:
        refused = fleet.cli("standalone", check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"roost: {tmp_path}/home/logs: ")
        assert "give a home that can be written: ROOST_HOME=… roost standalone" in refused.stderr
    finally:
        fleet.close()


def test_a_home_that_has_lost_its_key_is_not_given_another_one(tmp_path: Path) -> None:
    """What is encrypted could not be read; a new key would only hide that (D22)."""
    fleet = Daemons(tmp_path)
    try:
        fleet.cli("db", "migrate")
        fleet.cli("config", "init")
        fleet.cli("variables", "set", "a", "b")
        key = tmp_path / "encryption.key"
        key.unlink()
        refused = fleet.cli("standalone", check=False)
        assert refused.returncode == 2
        assert refused.stderr == (f"roost: the key of what is encrypted is gone: restore {key}\n")
        assert not key.exists()
    finally:
        fleet.close()
