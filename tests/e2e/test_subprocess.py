"""A command that a task has started goes on whatever becomes of worker and triggerer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.support.processes import is_alive, start_ticks
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_DAG = """\
from datetime import datetime
from roost.dag import DAG
from roost.operators import SubprocessOperator

with DAG("long", schedule=None, start_date=datetime(2026, 1, 1)):
    SubprocessOperator(
        task_id="command",
        command="echo x >> {ran}; read line < {go}; echo it was told $line",
    )
"""


def test_a_command_survives_a_killed_triggerer_and_worker(
    roost_home: Path, daemons: Daemons, database_url: str, tmp_path: Path
) -> None:
    """D8, D26: it ran once, and its end is seen by a triggerer that did not see its beginning."""
    go, ran = tmp_path / "go", tmp_path / "ran"
    os.mkfifo(go)
    (roost_home / "dags" / "long.py").write_text(_DAG.format(go=go, ran=ran))
    _, worker, triggerer = daemons.start_all("scheduler", "worker", "triggerer")
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
    daemons.cli("dags", "trigger", "long")
    held = "SELECT 1 FROM trigger WHERE job_id IS NOT NULL"
    wait_until(lambda: fetch(database_url, held), what="the triggerer to wait for it")
    wait_until(ran.exists, what="the command")
    triggerer.kill()
    worker.kill()
    daemons.start_all("worker", "triggerer")
    state = "SELECT state FROM task_instance"
    assert fetch(database_url, state) == [{"state": "deferred"}]
    go.write_text("all\n")
    wait_until(lambda: fetch(database_url, state) == [{"state": "success"}], 60, "its end")
    assert ran.read_text() == "x\n"
    (log,) = roost_home.glob("logs/**/task_id=command/attempt=1.log")
    assert "it was told all" in log.read_text()


_KILLS = "SELECT id FROM trigger_kill"
_SLOW = """\
from datetime import datetime
from roost.dag import DAG
from roost.operators import SubprocessOperator

with DAG("long", schedule=None, start_date=datetime(2026, 1, 1)):
    SubprocessOperator(task_id="command", command="echo $$ > {pid}; sleep 3600")
"""


@pytest.mark.parametrize("owner", ["lives", "is dead"])
def test_clearing_a_deferred_command_kills_it_d10(
    roost_home: Path, daemons: Daemons, database_url: str, tmp_path: Path, owner: str
) -> None:
    """Whoever waited for it does that, or, when that triggerer is gone, the next one."""
    pid = tmp_path / "pid"
    (roost_home / "dags" / "long.py").write_text(_SLOW.format(pid=pid))
    _, _, triggerer = daemons.start_all("scheduler", "worker", "triggerer")
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
    daemons.cli("dags", "trigger", "long", "--run-id", "r")
    held = "SELECT 1 FROM trigger WHERE job_id IS NOT NULL"
    wait_until(lambda: fetch(database_url, held), what="the triggerer to wait for it")
    wait_until(lambda: pid.exists() and pid.read_text().strip(), what="the command")
    command = int(pid.read_text())
    started = start_ticks(command)
    assert started is not None
    if owner == "is dead":
        triggerer.kill()
    daemons.cli("tasks", "mark", "long", "r", "command", "failed", "--yes")
    if owner == "is dead":
        assert len(fetch(database_url, _KILLS)) == 1
        daemons.start_all("triggerer")
    wait_until(lambda: not is_alive(command, started), 60, "the command to be killed")
    wait_until(lambda: not fetch(database_url, _KILLS), what="the kill to be settled")
    assert fetch(database_url, "SELECT state FROM task_instance") == [{"state": "failed"}]
    (log,) = roost_home.glob("logs/**/task_id=command/attempt=1.log")
    wait_until(lambda: "on_kill() was called" in log.read_text(), what="the log to say so")
