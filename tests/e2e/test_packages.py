"""A DAG package through real daemons: helpers, its own trigger and version (S13, S14)."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

DAGS = """
from roost.dag import DAG
from roost.operators import BashOperator, BaseOperator, PythonOperator

import helpers
from helpers.triggers import FileTrigger


class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger({landed!r}), method_name="done")

    def done(self, context, event):
        from helpers import late  # imported only now, from the version of this run
        return [event, late.VERSION]


def look(**context):
    return helpers.VERSION


with DAG("zipped", schedule=None):
    wait = Waits(task_id="wait")
    look = PythonOperator(task_id="look", python_callable=look)
    file = BashOperator(task_id="file", bash_command="query.sql")
    file.template_ext = (".sql",)
    wait >> look >> file
"""
TRIGGERS = """
import asyncio, os
from roost.triggers import BaseTrigger, TriggerEvent


class FileTrigger(BaseTrigger):
    def __init__(self, path):
        self.path = path

    def serialize(self):
        return ("helpers.triggers.FileTrigger", {"path": self.path})

    async def run(self):
        while not os.path.exists(self.path):
            await asyncio.sleep(0.05)
        yield TriggerEvent(os.path.basename(self.path))
"""


def package(version: str, landed: Path) -> bytes:
    """The archive with a version that its parts tell."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("dags.py", DAGS.format(landed=str(landed)))
        made.writestr("helpers/__init__.py", f"VERSION = {version!r}\n")
        made.writestr("helpers/late.py", f"VERSION = {version!r}\n")
        made.writestr("helpers/triggers.py", TRIGGERS)
        made.writestr("query.sql", f"echo {version} {{{{ ds }}}}\n")
    return buffer.getvalue()


@pytest.mark.timeout(120)
def test_a_run_keeps_the_version_of_its_package(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """S14, H20: replaced while a task of it is deferred, deleted before the next one starts."""
    landed, place = roost_home / "landed", roost_home / "dags" / "team.zip"
    place.write_bytes(package("one", landed))
    worker = {daemon.name.split("-")[0]: daemon for daemon in daemons.start_all()}["worker"]

    def files() -> list[str]:
        rows = fetch(database_url, "SELECT fileloc FROM dag WHERE is_active = :t", t=True)
        return [row["fileloc"] for row in rows]

    def states() -> dict[str, str]:
        rows = fetch(database_url, "SELECT task_id, state FROM task_instance")
        return {row["task_id"]: row["state"] for row in rows}

    wait_until(lambda: files() == ["team.zip/dags.py"], what="the DAG")
    daemons.cli("dags", "trigger", "zipped", "--run-id", "r", "--logical-date", "2026-01-31")
    wait_until(lambda: states().get("wait") == "deferred", what="the deferral")
    place.write_bytes(package("two", landed))
    wait_until(
        lambda: len(fetch(database_url, "SELECT DISTINCT code_hash FROM dag_version")) == 2,
        what="the second version",
    )
    place.unlink()
    wait_until(lambda: files() == [], what="the file to be missed")
    worker.kill()  # no template that has loaded it lives on
    daemons.start("worker")
    landed.touch()
    wait_until(lambda: set(states().values()) == {"success"}, what="the end")
    values = {
        row["task_id"]: row["value"]
        for row in fetch(
            database_url,
            "SELECT t.task_id, x.value FROM xcom x JOIN task_instance t ON t.id = x.ti_id",
        )
    }
    assert values == {"wait": '["landed","one"]', "look": '"one"', "file": '"one 2026-01-31"'}
