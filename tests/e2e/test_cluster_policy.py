"""The cluster policy through real daemons, from the place where it is looked for (S108)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

FILE = """
from roost.dag import DAG
from roost.operators import BashOperator

with DAG("d", schedule=None):
    BashOperator(task_id="t", bash_command="echo by its author")
"""
POLICY = """
def task_policy(task):
    task.bash_command = "echo by the policy"

def task_instance_mutation_hook(ti):
    ti.priority_weight = 7
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_s108_what_the_policy_says_is_what_runs(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """S108: what ``$ROOST_HOME/config/roost_local_settings.py`` changes is stored and run."""
    (roost_home / "dags" / "d.py").write_text(FILE)
    (roost_home / "config").mkdir()
    (roost_home / "config" / "roost_local_settings.py").write_text(POLICY)
    daemons.start_all()
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag"), what="the DAG")
    assert daemons.cli("dags", "trigger", "d", "--run-id", "r", "--wait").returncode == 0
    rows = fetch(
        database_url,
        "SELECT x.value, t.priority_weight AS weight FROM xcom x "
        "JOIN task_instance t ON t.id = x.ti_id",
    )
    assert rows == [{"value": '"by the policy"', "weight": 7}]
    shown = daemons.json("tasks", "render", "d", "r", "t")
    assert {"field": "bash_command", "value": "echo by the policy"} in shown
