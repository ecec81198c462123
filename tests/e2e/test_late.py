"""SLAs and deadlines with real processes: who is late is told of (S100-S103, H22)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_SOURCE = """\
import os, time
from datetime import datetime, timedelta, timezone
from roost.dag import DAG, DeadlineAlert, DeadlineReference
from roost.operators import PythonOperator

HOME = {home!r}


def note(*words):
    with open(os.path.join(HOME, "witness"), "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def late(dag, task_list, blocking_task_list, slas, blocking_tis):
    note("sla", dag.dag_id, task_list, blocking_tis[0].task_id)


def overdue(context):
    note("deadline", context["dag_run"].run_type, context["reason"])


def wait():
    while not os.path.exists(os.path.join(HOME, "go")):
        time.sleep(0.05)


with DAG(
    "d",
    schedule="@daily",
    start_date={start!r},
    sla_miss_callback=late,
    deadline=DeadlineAlert(
        DeadlineReference.DAGRUN_QUEUED_AT, timedelta(seconds=1), overdue, name="soon"
    ),
):
    PythonOperator(task_id="slow", python_callable=wait, sla=timedelta(0))
"""


@pytest.mark.timeout(180)
def test_h22_s103_who_is_late_is_told_of(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """H22, S103: a deadline a second after the run began, an SLA of yesterday's interval."""
    midnight = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    source = _SOURCE.format(home=str(roost_home), start=midnight - timedelta(days=1))
    (roost_home / "dags" / "d.py").write_text(source.replace("datetime.datetime(", "datetime("))
    daemons.start_all("scheduler", "worker")
    witness = roost_home / "witness"

    def told(word: str) -> bool:
        return witness.exists() and word in witness.read_text()

    wait_until(lambda: told("deadline"), 60, "the deadline")
    wait_until(lambda: told("sla"), 90, "the SLA miss")
    (roost_home / "go").touch()
    wait_until(
        lambda: fetch(database_url, "SELECT 1 FROM dag_run WHERE state = 'success'"), 60, "the end"
    )
    date = (midnight - timedelta(days=1)).isoformat()
    assert sorted(witness.read_text().splitlines()) == [
        "deadline scheduled deadline soon missed: the run is running",
        f"sla d slow on {date}+00:00 slow",
    ]
    (miss,) = daemons.json("dags", "sla-misses", "d")
    assert (miss["task_id"], miss["notification_sent"]) == ("slow", True)
