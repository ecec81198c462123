"""Runs that start and await runs, with real daemons on both databases (S95, S97, S98, D24)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.support import waiting
from tests.support.daemons import Daemons

DAGS = """
from datetime import datetime
from pathlib import Path
from roost.dag import DAG
from roost.operators import PythonOperator, SubDagOperator, TriggerDagRunOperator
from roost.sensors import ExternalTaskSensor, PythonSensor

start = datetime(2026, 1, 1)
flags = Path(__file__).parents[1] / "flags"

def flag(name):
    return PythonSensor(
        task_id="wait", python_callable=lambda: (flags / name).exists(), poke_interval=0.2,
        deferrable=True,
    )

def section(parent):
    with DAG(f"{parent}.section", schedule="@daily", start_date=start) as dag:
        flag("inner") >> PythonOperator(
            task_id="work", python_callable=lambda dag_run: dag_run.conf["x"], pool="one"
        )
    return dag

with DAG("parent", schedule="@daily", start_date=start, catchup=False,
         is_paused_upon_creation=True) as parent:
    section = SubDagOperator(task_id="section", subdag=section("parent"), pool="one")
    section >> TriggerDagRunOperator(
        task_id="other", trigger_dag_id="other", conf={"from": "{{ run_id }}"},
        logical_date="{{ ts }}", wait_for_completion=True,
    )

with DAG("other", schedule=None, start_date=start):
    flag("other") >> PythonOperator(
        task_id="work", python_callable=lambda dag_run: dag_run.conf["from"]
    )

with DAG("watcher", schedule=None, start_date=start):
    ExternalTaskSensor(
        task_id="see", external_dag_id="other", external_task_id="work", poke_interval=1
    )
"""

FAMILY = ("parent", "parent.section")


# Each look at the daemons is a process of its own.
patiently = partial(waiting.wait_until, timeout=90)


def states(daemons: Daemons, dag_id: str, run_id: str) -> dict[str, str]:
    rows: Any = daemons.json("tasks", "states-for-dag-run", dag_id, run_id)
    return {row["task_id"]: row["state"] for row in rows}


@pytest.mark.timeout(240)
def test_s95_s98_a_tree_of_runs_waits_without_slots_and_outlives_a_scheduler(
    daemons: Daemons,
) -> None:
    home = daemons.home
    (home / "flags").mkdir()
    (home / "dags" / "tree.py").write_text(DAGS)
    daemons.cli("pools", "set", "one", "1")
    scheduler, _triggerer, _worker = daemons.start_all()
    patiently(lambda: "watcher" in daemons.cli("dags", "list").stdout, what="the DAG file")
    daemons.cli("dags", "unpause", "parent")
    date = "2026-01-05T00:00:00+00:00"
    trigger = ("dags", "trigger", "--run-id", "r", "--logical-date", date)
    daemons.cli(*trigger, "parent", "--conf", '{"x": 5}')
    daemons.cli(*trigger, "watcher")
    patiently(
        lambda: (
            states(daemons, "parent", "r").get("section") == "deferred"
            and states(daemons, "watcher", "r") == {"see": "deferred"}
        ),
        what="the waits",
    )
    (pool,) = [row for row in daemons.json("pools", "list") if row["pool"] == "one"]
    assert (pool["running"], pool["queued"]) == (0, 0)
    scheduler.kill()
    (home / "flags" / "inner").touch()
    daemons.start("scheduler")
    child = "triggered__parent.other__r"
    patiently(
        lambda: states(daemons, "parent", "r").get("other") == "deferred", what="the second wait"
    )
    assert daemons.cli("dags", "state", "parent.section", "r").stdout == "success\n"
    (home / "flags" / "other").touch()
    patiently(
        lambda: daemons.cli("dags", "state", "parent", "r").stdout == "success\n",
        what="the end of the parent",
    )
    patiently(lambda: states(daemons, "watcher", "r") == {"see": "success"}, what="the watcher")
    assert states(daemons, "other", child) == {"wait": "success", "work": "success"}
    listed = {row["dag_id"]: row for row in daemons.json("dags", "list")}
    assert listed["parent.section"]["next_run"] is None
    # Each of its runs is one of its parent's; the schedule made none.
    ids = [{row["run_id"] for row in daemons.json("dags", "list-runs", dag)} for dag in FAMILY]
    assert "r" in ids[1]
    assert ids[1] <= ids[0]
