"""Clearing a SubDagOperator's task runs what is inside again, with real processes (S97)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_SOURCE = """\
from datetime import datetime

from roost.dag import DAG
from roost.operators import BashOperator, SubDagOperator

start = datetime(2026, 1, 1)
with DAG("p.sub", schedule="@daily", start_date=start) as sub:
    BashOperator(task_id="inner", bash_command="true")
with DAG("p", schedule=None, start_date=start):
    SubDagOperator(task_id="sub", subdag=sub) >> BashOperator(task_id="after", bash_command="true")
"""


@pytest.mark.timeout(180)
def test_clear_cascades_into_the_run_of_the_sub_dag_and_mark_does_not(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """S97: the inner task runs once more for a clear, and not for a mark."""
    (roost_home / "dags" / "p.py").write_text(_SOURCE)
    daemons.start_all()
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE dag_id = 'p'"), what="the DAG")
    daemons.cli("dags", "trigger", "p", "--run-id", "r", "--wait")
    assert tries(database_url) == {"sub": 1, "inner": 1, "after": 1}

    told = daemons.cli("tasks", "clear", "p", "--run-id", "r", "-t", "sub", "-y").stdout
    assert told == "cleared 2 task instances in 2 runs\n"
    wait_until(lambda: all_succeeded(database_url), 60, "both runs to end")
    assert tries(database_url) == {"sub": 2, "inner": 2, "after": 1}

    daemons.cli("tasks", "mark", "p", "r", "sub", "failed", "-y")
    wait_until(
        lambda: fetch(database_url, "SELECT 1 FROM dag_run WHERE dag_id = 'p' AND end_date > 0"),
        60,
        "the run to end",
    )
    assert tries(database_url) == {"sub": 2, "inner": 2, "after": 1}


def tries(url: str) -> dict[str, int]:
    rows = fetch(url, "SELECT task_id, try_number FROM task_instance")
    return {row["task_id"]: row["try_number"] for row in rows}


def all_succeeded(url: str) -> bool:
    return {row["state"] for row in fetch(url, "SELECT state FROM dag_run")} == {"success"}
