"""Tasks that their triggers end, with real daemons and in one process (D1, D11)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from roost.cli.main import cli
from roost.testing import run_dag
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until
from tests.triggerer import end_triggers

SOURCE = Path(end_triggers.__file__).read_text()
STATES = {
    "good": "success",
    "bad": "failed",
    "left": "skipped",
    "moment": "success",
    "told": "success",
}
_RUNNING = "SELECT t.task_id FROM event_log e JOIN task_instance t ON t.id = e.ti_id {where}"
_TOLD = "SELECT value FROM xcom WHERE key = 'return_value'"


@pytest.mark.timeout(120)
def test_no_worker_is_asked_a_second_time_d11(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """One start each, one end each, and what was pushed is there for those downstream."""
    (roost_home / "dags" / "ends.py").write_text(SOURCE)
    daemons.start_all()
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
    daemons.cli("dags", "trigger", "ends")

    def states() -> dict[str, str]:
        return {
            row["task_id"]: row["state"]
            for row in fetch(database_url, "SELECT task_id, state FROM task_instance")
        }

    wait_until(lambda: states() == STATES, 60, "all to end")
    starts = fetch(database_url, _RUNNING.format(where="WHERE e.event = 'start'"))
    assert sorted(row["task_id"] for row in starts) == sorted(STATES)
    (told,) = fetch(database_url, _TOLD)
    assert json.loads(told["value"]) == ["good", "bad", "left", None]
    (reason,) = fetch(database_url, "SELECT reason FROM event_log WHERE event = 'fail'")
    assert reason["reason"] == "it was bad"


def test_in_one_process_it_is_the_same_d11(roost_home: Path, monkeypatch: Any) -> None:
    """``roost dags test``."""
    (roost_home / "dags" / "ends.py").write_text(SOURCE)
    monkeypatch.setenv("ROOST_HOME", str(roost_home))
    result = CliRunner().invoke(cli, ["dags", "test", "ends"])
    lines = [line.split() for line in result.stdout.splitlines()]
    ends = {words[0]: words[1] for words in lines if len(words) > 1 and words[0] in STATES}
    assert ends == STATES, result.output


def test_in_a_simulation_it_is_the_same_d11() -> None:
    """``roost.testing``."""
    run = run_dag(end_triggers.dag)
    assert run.states == STATES
    assert run["told"].xcom() == ["good", "bad", "left", None]
