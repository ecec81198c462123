"""Processes that run several tasks (``worker.isolation = "reuse"``), with real daemons."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_TASKS = 24
_DAG = """\
import os
import time
from datetime import datetime, timedelta
from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import TimeDeltaTrigger

class Waits(BaseOperator):
    def execute(self, context):
        self.note(context, "deferred")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0.5)), method_name="resume")

    def resume(self, context, event=None):
        time.sleep(0.05)
        self.note(context, "resumed")

    def note(self, context, what):
        with open({witness!r}, "a") as out:
            out.write(f"{{context['ti'].task_id}} {{what}} {{os.getpid()}}\\n")

with DAG("many", schedule=None, start_date=datetime(2026, 1, 1), max_active_tasks=100):
    for number in range({tasks}):
        Waits(task_id=f"t{{number}}", retries=0)
"""


def test_deferred_tasks_share_processes_and_a_killed_worker_loses_none(
    roost_home: Path, daemons: Daemons, database_url: str, tmp_path: Path
) -> None:
    """S1, S18, D3: what a killed worker ran is run again without a try; the others ran once."""
    with (roost_home / "roost.toml").open("a") as config:
        config.write('[worker]\nisolation = "reuse"\nslots = 4\n')
    witness = tmp_path / "witness"
    text = _DAG.format(witness=str(witness), tasks=_TASKS)
    (roost_home / "dags" / "many.py").write_text(text)
    _, worker, _ = daemons.start_all("scheduler", "worker", "triggerer")
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
    daemons.cli("dags", "trigger", "many")

    def lines(what: str) -> list[list[str]]:
        text = witness.read_text() if witness.exists() else ""
        return [line.split() for line in text.splitlines() if f" {what} " in line]

    wait_until(lambda: len(lines("resumed")) > 3, what="some to be resumed")
    worker.kill()
    daemons.start_all("worker")
    states = "SELECT DISTINCT state FROM task_instance"
    wait_until(lambda: fetch(database_url, states) == [{"state": "success"}], 60, "all to succeed")
    assert {line[0] for line in lines("resumed")} == {f"t{number}" for number in range(_TASKS)}
    tries = fetch(database_url, "SELECT DISTINCT try_number FROM task_instance")
    assert tries == [{"try_number": 1}]
    for what in ("deferred", "resumed"):
        assert len(lines(what)) <= _TASKS + 4, "no more were run again than a worker has slots"
    pids = {line[2] for what in ("deferred", "resumed") for line in lines(what)}
    assert len(pids) < _TASKS, "48 parts of tasks, and a process each would be 48"
