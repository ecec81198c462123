"""The key that a waiting task was encrypted with is thrown away too early (D4, D22)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roost.support.crypto import KEY_FILE, new_key
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

DAGS = """
from datetime import timedelta
from pathlib import Path

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.triggers import BaseTrigger, TriggerEvent


class Gate(BaseTrigger):
    def __init__(self, path):
        self.path = path

    def serialize(self):
        return "Gate", {{"path": self.path}}

    async def run(self):
        import asyncio

        Path(f"{{self.path}}.{{id(self)}}").touch()
        while not Path(self.path).exists():
            await asyncio.sleep(0.05)
        yield TriggerEvent("come")


class Waits(BaseOperator):
    def execute(self, context):
        kwargs = {{"given": 1}} if self.task_id == "given" else {{}}
        self.defer(trigger=Gate({gate!r}), method_name="done", kwargs=kwargs)

    def done(self, context, event, given=None):
        assert event == "come"


with DAG("lost", schedule=None):
    for name in ("given", "empty"):
        Waits(task_id=name, retries=1, retry_delay=timedelta(0))
"""


@pytest.mark.timeout(120)
def test_d4_what_no_key_opens_fails_its_try_and_the_next_one_defers_anew(
    daemons: Daemons, database_url: str, roost_home: Path, tmp_path: Path
) -> None:
    """Neither task is stranded, and the one that left nothing is not even hurt."""
    gate = tmp_path / "gate"
    (roost_home / "dags" / "lost.py").write_text(DAGS.format(gate=str(gate)))
    daemons.start_all()

    def rows(sql: str) -> list[dict[str, Any]]:
        return [dict(row) for row in fetch(database_url, sql)]

    wait_until(lambda: rows("SELECT dag_id FROM dag WHERE dag_id = 'lost'"), what="the DAG")
    daemons.cli("dags", "trigger", "lost", "--run-id", "r")
    wait_until(lambda: len(list(tmp_path.glob("gate.*"))) == 2, what="both to wait")
    key = roost_home / KEY_FILE
    key.write_text(new_key() + "\n")
    gate.touch()
    ended = "SELECT id FROM task_instance WHERE state IN ('success', 'failed')"
    wait_until(lambda: len(rows(ended)) == 2, what="the end")
    found = {
        row["task_id"]: (row["state"], row["try_number"])
        for row in rows("SELECT task_id, state, try_number FROM task_instance")
    }
    assert found["given"] == ("success", 2)
    log = daemons.cli("tasks", "logs", "lost", "r", "given", "--try-number", "1").stdout
    assert "what task 'given' is resumed with cannot be read: " in log
    assert "cannot be decrypted with any key of security.encryption_key" in log
    assert found["empty"][0] == "success"
