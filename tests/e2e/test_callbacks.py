"""Callbacks and mails with real processes: each runs at least once, whoever is killed (H23)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.mail_server import mail_server
from tests.support.waiting import wait_until

_SOURCE = """\
import os, time
from roost.dag import DAG
from roost.operators import BashOperator, PythonOperator

HOME = {home!r}


def note(*words):
    with open(os.path.join(HOME, "witness"), "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def told(context):
    print("told of", context["reason"])
    note("begin", context["ti"].state, context["exception"])
    while os.path.exists(os.path.join(HOME, "hold")):
        time.sleep(0.05)
    note("end", context["ti"].state)


def ended(context):
    note("dag", context["reason"])
    raise RuntimeError("the callback itself is wrong")


def bad():
    raise ValueError("boom")


with DAG("d", on_failure_callback=ended):
    PythonOperator(
        task_id="bad", python_callable=bad, on_failure_callback=told, email="ann@example.org"
    )
"""


def _witness(home: Path) -> list[str]:
    file = home / "witness"
    return file.read_text().splitlines() if file.exists() else []


def _settled(url: str) -> bool:
    rows = fetch(url, "SELECT settled FROM dispatch WHERE callback IS NOT NULL")
    return len(rows) >= 3 and all(row["settled"] for row in rows)


@pytest.mark.timeout(120)
def test_h23_a_callback_survives_a_killed_worker_and_scheduler(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """H23: killed while it runs, it runs again; what it raises changes nothing."""
    hold = roost_home / "hold"
    hold.touch()
    (roost_home / "dags" / "d.py").write_text(_SOURCE.format(home=str(roost_home)))
    with mail_server() as server:
        daemons.env["ROOST__SMTP__HOST"] = server.smtp.host
        daemons.env["ROOST__SMTP__PORT"] = str(server.smtp.port)
        scheduler, worker = daemons.start_all("scheduler", "worker")
        wait_until(lambda: bool(fetch(database_url, "SELECT 1 FROM dag")), what="the DAG")
        daemons.cli("dags", "trigger", "d", "--run-id", "r")
        wait_until(
            lambda: any("begin" in line for line in _witness(roost_home)), what="it to begin"
        )
        for daemon in (worker, scheduler):
            daemon.signal(signal.SIGKILL)
            daemon.process.wait()
        before = len([line for line in _witness(roost_home) if "begin" in line])
        hold.unlink()
        daemons.start_all("scheduler", "worker")
        wait_until(lambda: "end failed" in _witness(roost_home), 60, "the callback to end")
        wait_until(lambda: _settled(database_url), 60, "all callbacks to be settled")
    witness = _witness(roost_home)
    assert before == 1
    assert witness.count("begin failed ValueError: boom") == 2
    assert witness.count("end failed") == 1
    assert "dag task_failure" in witness
    assert any("[Roost] d.bad failed: r, try 1" in mail["Subject"] for mail in server.mails)
    folder = roost_home / "logs" / "dag_id=d" / "run_id=r"
    log = (folder / "task_id=bad" / "attempt=1.log").read_text()
    assert "on_failure callback of task bad, try 1: ValueError: boom" in log
    assert "told of ValueError: boom" in log
    assert "RuntimeError: the callback itself is wrong" in (folder / "dag.log").read_text()
    assert fetch(database_url, "SELECT state FROM dag_run") == [{"state": "failed"}]
