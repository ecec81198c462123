"""A task that gives its URL to something outside, waits, and goes on when that has answered."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

SOURCE = """\
from pathlib import Path

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import ExternalTrigger, callback_url

HOME = Path(__file__).parents[1]


class Job(BaseOperator):
    def execute(self, context):
        key = f"job/{context['dispatch_id']}"
        url = callback_url(key, expires_in=3600)
        print("the URL is", url)
        (HOME / "url.new").write_text(url)
        (HOME / "url.new").rename(HOME / "url")
        self.defer(trigger=ExternalTrigger(key), method_name="done", timeout=600)

    def done(self, context, event):
        (HOME / "result").write_text(repr(event))


with DAG("outside", schedule=None):
    Job(task_id="job")
"""


@pytest.mark.timeout(120)
def test_a_job_outside_answers_by_its_url(
    daemons: Daemons, roost_home: Path, database_url: str
) -> None:
    """N1-N4: no process waits; the URL is hidden in the log; the payload is the event."""
    (roost_home / "dags" / "outside.py").write_text(SOURCE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"ROOST__TRIGGERER__CALLBACK_PORT": port}
    for kind in ("scheduler", "worker", "triggerer"):
        daemons.start(kind, env=env)
    dag = "SELECT dag_id FROM dag"
    wait_until(lambda: fetch(database_url, dag), what="the DAG")
    daemons.cli("dags", "trigger", "outside")
    wait_until((roost_home / "url").exists, what="the URL")
    url = (roost_home / "url").read_text()
    body = json.dumps({"rows": 42}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:  # noqa: S310
        assert answer.status == 202
    done = "SELECT id FROM task_instance WHERE state = 'success'"
    wait_until(lambda: fetch(database_url, done), what="the end of the task")
    assert (roost_home / "result").read_text() == "{'rows': 42}"
    token = url.rpartition("/")[2]
    logs = [path.read_text() for path in (roost_home / "logs").rglob("*") if path.is_file()]
    assert any("the URL is" in text for text in logs)
    assert not any(token in text for text in logs)
