"""The log of a deferred task, from its first line to the end, with real processes (D21)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_promises import dag_is_known, run_state, states
from tests.support.daemons import ROOST, Daemons
from tests.support.waiting import wait_until

_DAG = """
import asyncio, logging, os
from datetime import datetime, timedelta
from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, TriggerEvent


class Look(BaseTrigger):
    def __init__(self, path):
        self.path = path

    def serialize(self):
        return ("Look", {"path": self.path})

    async def run(self):
        logging.info("looking")
        while not os.path.exists(self.path):
            self.note("it is not there")
            await asyncio.sleep(0.05)
        print("found")
        yield TriggerEvent(self.path)


class Wait(BaseOperator):
    def __init__(self, path, timeout, **kwargs):
        super().__init__(**kwargs)
        self.path, self.timeout = path, timeout

    def execute(self, context):
        print("submitted")
        self.defer(trigger=Look(self.path), method_name="back", timeout=self.timeout)

    def back(self, context, event):
        print("back again")


with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
    Wait(task_id="meets", path="LANDED", timeout=timedelta(hours=1))
    Wait(task_id="waits", path="/nowhere", timeout=timedelta(seconds=3))
"""


@pytest.mark.timeout(120)
def test_one_log_tells_the_whole_wait(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """D6, D21: live while deferred; the last polls when the wait timed out."""
    landed = roost_home / "landed"
    (roost_home / "dags" / "d.py").write_text(_DAG.replace("LANDED", str(landed)))
    daemons.start_all()
    wait_until(lambda: dag_is_known(database_url), what="the DAG")
    daemons.cli("dags", "trigger", "d", "--run-id", "r")
    wait_until(lambda: states(database_url)["deferred"] == 2, what="both to be deferred")
    following = subprocess.Popen(
        [ROOST, "tasks", "logs", "d", "r", "meets", "-f"],
        env=daemons.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    seen: list[str] = []
    while not seen or not seen[-1].endswith("looking\n"):
        seen.append(following.stdout.readline())
        assert seen[-1], seen
    assert states(database_url)["deferred"] >= 1, "this was seen while it waited"
    wait_until(lambda: states(database_url)["failed"] == 1, what="the time-out")
    landed.touch()
    seen += following.stdout.readlines()
    following.stdout.close()
    assert following.wait() == 0
    text = "".join(seen)
    marks = ["submitted", "- deferred on Look, back in back(); times out after 1:00:00",
             "] looking", "] found", "resumed in back()", "back again"]  # fmt: skip
    at = [text.find(mark) for mark in marks]
    assert -1 not in at and at == sorted(at), text
    wait_until(lambda: run_state(database_url) == "failed", what="the run to end")

    def late() -> str:
        return daemons.cli("tasks", "logs", "d", "r", "waits").stdout

    wait_until(lambda: "the last polls of trigger" in late(), what="the black box")
    assert "times: it is not there" in late()
    assert "the trigger timed out: no event of trigger" in late()
