"""What tasks defer with is encrypted wherever it is stored (D22), and shows nowhere.

Canaries are given to a trigger, to the method that resumes and to the event. At each stage every
text of every table, the database's file, all files below the home and what the commands list are
searched for them: invariant S19.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from roost.models.tables import metadata
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

CANARIES = ("canary-in-kwargs", "canary-in-next-kwargs", "canary-in-event", "canary-from-outside")
DAGS = """
from pathlib import Path

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, ExternalTrigger, TriggerEvent

OUTSIDE = Path({outside!r})


def canaries():
    return (OUTSIDE / "canaries").read_text().split()


class Gate(BaseTrigger):
    def __init__(self, api_token):
        self.api_token = api_token

    def serialize(self):
        return "Gate", {{"api_token": self.api_token}}

    async def run(self):
        import asyncio

        print("waits with", self.api_token)
        while not (OUTSIDE / "open").exists():
            await asyncio.sleep(0.05)
        assert self.api_token == canaries()[0]
        yield TriggerEvent({{"password": canaries()[2]}})


class Waits(BaseOperator):
    template_fields = ("api_token",)

    def __init__(self, api_token, **kwargs):
        super().__init__(**kwargs)
        self.api_token = api_token

    def execute(self, context):
        assert self.api_token == canaries()[0]
        given = canaries()
        self.defer(trigger=Gate(given[0]), method_name="done", kwargs={{"secret": given[1]}})

    def done(self, context, event, secret):
        assert (secret, event) == (canaries()[1], {{"password": canaries()[2]}})
        self.defer(trigger=ExternalTrigger("key"), method_name="told", kwargs={{"secret": secret}})

    def told(self, context, event, secret):
        assert (secret, event) == (canaries()[1], {{"password": canaries()[3]}})


with DAG("canary", schedule=None, user_defined_macros={{"canaries": canaries}}):
    Waits(task_id="wait", api_token="{{{{ canaries()[0] }}}}")
"""


def seen(url: str, home: Path) -> list[str]:
    """Where a canary is."""
    found = []
    for table in metadata.sorted_tables:
        for row in fetch(url, f'SELECT * FROM "{table.name}"'):  # noqa: S608 - our own names
            text = repr(row)
            found += [f"table {table.name}: {text}" for one in CANARIES if one in text]
    for file in [path for path in home.rglob("*") if path.is_file()]:
        data = file.read_bytes()
        found += [f"file {file}" for one in CANARIES if one.encode() in data]
    return found


def listed(daemons: Daemons, trigger_id: int | None) -> list[str]:
    """What commands show of a canary."""
    at = ("canary", "r", "wait")
    commands: list[tuple[str, ...]] = [
        ("triggers", "list"), ("triggers", "load"), ("triggers", "why", *at), ("events", "list"),
        ("tasks", "list", "canary"), ("tasks", "states-for-dag-run", "canary", "r"),
        ("tasks", "state", *at), ("tasks", "why", *at), ("tasks", "failed-deps", *at),
        ("tasks", "logs", *at), ("tasks", "render", *at), ("jobs", "list"),
        ("dags", "list-runs", "canary"), ("dags", "details", "canary"), ("dags", "show", "canary"),
    ]  # fmt: skip
    if trigger_id is not None:
        commands += [("triggers", "show", str(trigger_id)), ("triggers", "why", str(trigger_id))]
    found = []
    for command in commands:
        for output in ((), ("-o", "json")):
            done = daemons.cli(*command, *output, check=False)
            shown = done.stdout + done.stderr
            assert "Usage:" not in shown or output, shown
            found += [f"{command}: {shown}" for one in CANARIES if one in shown]
    return found


@pytest.mark.timeout(180)
def test_d22_what_a_task_defers_with_is_nowhere_to_be_read(
    daemons: Daemons, database_url: str, roost_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "canaries").write_text("\n".join(CANARIES))
    (roost_home / "dags" / "canary.py").write_text(DAGS.format(outside=str(tmp_path)))
    started = {daemon.name.split("-")[0]: daemon for daemon in daemons.start_all()}

    def one(sql: str) -> Any:
        return next(iter(fetch(database_url, sql)), None)

    def nowhere(trigger_id: int | None = None) -> None:
        assert seen(database_url, roost_home) == []
        assert listed(daemons, trigger_id) == []

    wait_until(lambda: one("SELECT dag_id FROM dag WHERE dag_id = 'canary'"), what="the DAG")
    daemons.cli("dags", "trigger", "canary", "--run-id", "r")
    held = wait_until(lambda: one("SELECT id FROM trigger WHERE job_id IS NOT NULL"), what="it")
    nowhere(held["id"])

    # The worker rests, so that the resumed task stays in the queue; then the scheduler, for events.
    os.kill(started["scheduler"].pid, signal.SIGSTOP)
    (tmp_path / "open").touch()
    wait_until(lambda: one("SELECT id FROM trigger_event"), what="the event")
    assert seen(database_url, roost_home) == []
    os.kill(started["worker"].pid, signal.SIGSTOP)
    os.kill(started["scheduler"].pid, signal.SIGCONT)
    resumed = "SELECT id FROM task_instance WHERE next_kwargs IS NOT NULL AND state = 'queued'"
    wait_until(lambda: one(resumed), what="the resumed task in the queue")
    assert seen(database_url, roost_home) == []
    os.kill(started["worker"].pid, signal.SIGCONT)

    waits = "SELECT id FROM trigger WHERE external_key = 'key'"
    nowhere(wait_until(lambda: one(waits), what="the wait for an event")["id"])
    daemons.cli("events", "send", "key", "--payload", f'{{"password": "{CANARIES[3]}"}}')
    wait_until(
        lambda: one("SELECT id FROM task_instance WHERE state IN ('success', 'failed')"),
        what="the end",
    )
    nowhere()
    assert one("SELECT state FROM task_instance")["state"] == "success"
