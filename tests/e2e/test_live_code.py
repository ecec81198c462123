"""Trigger code that is edited while triggers run, through real daemons (D23)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

DAGS = """
from roost.dag import DAG
from roost.operators import BaseOperator
from team.waits import Gate

HERE = {version!r}


class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Gate({folder!r}, context["run_id"]), method_name="done")

    def done(self, context, event):
        return event


with DAG("live", schedule=None):
    Waits(task_id="wait")
"""
HELPER = """
import asyncio, os
from roost.triggers import BaseTrigger, TriggerEvent

with open({folder!r} + "/importers", "ab") as file, open("/proc/self/cmdline", "rb") as own:
    file.write(own.read().replace(b"\\0", b" ") + b"\\n")


class Gate(BaseTrigger):
    def __init__(self, folder, name):
        self.folder, self.name = folder, name

    def serialize(self):
        return "team.waits.Gate", {{"folder": self.folder, "name": self.name}}

    async def run(self):
        while not os.path.exists(f"{{self.folder}}/{{self.name}}"):
            await asyncio.sleep(0.05)
        from team.words import WORD  # only now
        yield TriggerEvent({version!r} + WORD)
"""


def write(home: Path, version: str) -> None:
    """One version of the DAG file's helpers, and of the file that is parsed for them."""
    (home / "dags" / "team").mkdir(exist_ok=True)
    folder = str(home / "gates")
    for name, text in {
        "team/words.py": f"WORD = '-{version}'\n",
        "team/waits.py": "import team.words\n" + HELPER.format(version=version, folder=folder),
        "dags.py": DAGS.format(version="file", folder=folder),
    }.items():
        new = home / "dags" / f"{name}.new"
        new.write_text(text)
        new.rename(home / "dags" / name)


@pytest.mark.timeout(180)
def test_edited_code_is_used_by_new_deferrals_and_running_ones_end_on_theirs(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """D23: a helper module is edited under load; the runner dies in between; a helper is deleted.

    None but parser, template, task and runner imports the module that a trigger row names.
    """
    (roost_home / "gates").mkdir()
    write(roost_home, "one")
    started = {daemon.name.split("-")[0]: daemon for daemon in daemons.start_all()}

    def version_count() -> int:
        return len(fetch(database_url, "SELECT code_hash FROM dag_version"))

    def deferred() -> int:
        return len(fetch(database_url, "SELECT id FROM trigger WHERE job_id IS NOT NULL"))

    def trigger_run(run_id: str) -> None:
        daemons.cli("dags", "trigger", "live", "--run-id", run_id)

    wait_until(lambda: version_count() == 1, what="the DAG")
    for run in ("old1", "old2"):
        trigger_run(run)
    wait_until(lambda: deferred() == 2, what="the first deferrals")
    write(roost_home, "two")
    wait_until(lambda: version_count() == 2, what="the second version")
    trigger_run("new")
    wait_until(lambda: deferred() == 3, what="the deferral of the second version")
    assert len({row["code"] for row in daemons.json("triggers", "list")}) == 2

    (roost_home / "gates" / "old1").touch()
    (roost_home / "gates" / "new").touch()

    def values() -> dict[str, str]:
        rows = fetch(
            database_url,
            "SELECT r.run_id, x.value FROM xcom x JOIN task_instance t ON t.id = x.ti_id "
            "JOIN dag_run r ON r.id = t.dag_run_id",
        )
        return {row["run_id"]: row["value"] for row in rows}

    wait_until(lambda: len(values()) == 2, what="one of each version to end")
    assert values() == {"old1": '"one-one"', "new": '"two-two"'}

    triggerer = started["triggerer"]
    runner = next(iter(triggerer.family()))
    (roost_home / "dags" / "team" / "words.py").unlink()
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: triggerer.family() - {runner}, what="the next runner")
    (roost_home / "gates" / "old2").touch()
    wait_until(lambda: "old2" in values(), what="the one that began with the first version")
    assert values()["old2"] == '"one-one"'

    importers = (roost_home / "gates" / "importers").read_text().splitlines()
    kinds = {line.split(" -m ")[-1].split()[0] for line in importers}
    assert kinds == {
        "roost.scheduler.parsing.server", "roost.worker.zygote", "roost.triggerer.runner",
    }  # fmt: skip
