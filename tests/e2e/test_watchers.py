"""A watcher of an asset, by real daemons: it fires, its DAG runs, its triggerer dies (D13)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

DAGS = """
import asyncio, os
from roost.dag import DAG, Asset, AssetWatcher
from roost.operators import PythonOperator
from roost.triggers import BaseEventTrigger, TriggerEvent


class Drop(BaseEventTrigger):
    '''An event for each file that is put into a folder; a file is taken when it is stored.'''

    def __init__(self, folder):
        self.folder = folder

    def serialize(self):
        return ("Drop", {{"folder": self.folder}})

    async def run(self):
        while True:
            for name in sorted(os.listdir(self.folder)):
                yield TriggerEvent({{"name": name}}, key=name)
                os.remove(f"{{self.folder}}/{{name}}")
            await asyncio.sleep(0.05)


def names(triggering_asset_events):
    return [event.extra["name"] for event in triggering_asset_events["drop"]]


asset = Asset("drop", watchers=[AssetWatcher("folder", Drop({folder!r}))])
for dag_id in ("one", "two"):
    with DAG(dag_id, schedule=asset):
        PythonOperator(task_id="names", python_callable=names)
"""


@pytest.mark.timeout(240)
def test_a_watcher_starts_runs_and_outlives_its_triggerer(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """D13: a file's event starts a run of each DAG; killed and taken over, none is lost or doubled;
    paused, nobody watches."""
    folder = roost_home / "drop"
    folder.mkdir()
    (roost_home / "dags" / "drop.py").write_text(DAGS.format(folder=str(folder)))
    started = {daemon.name.split("-")[0]: daemon for daemon in daemons.start_all()}

    def put(name: str) -> None:
        (folder / name).touch()

    def taken() -> dict[str, list[str]]:
        """The names that the runs of each DAG were made for."""
        found: dict[str, list[str]] = {}
        for row in fetch(
            database_url,
            "SELECT r.dag_id, e.extra FROM asset_use u JOIN dag_run r ON r.id = u.dag_run_id "
            "JOIN asset_event e ON e.id = u.event_id WHERE r.state = 'success' ORDER BY e.id",
        ):
            found.setdefault(row["dag_id"], []).append(row["extra"])
        return found

    def expected(count: int) -> dict[str, list[str]]:
        names = [f'{{"name":"f{number}"}}' for number in range(count)]
        return {"one": names, "two": names}

    def triggers() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = daemons.json("triggers", "list")
        return rows

    put("f0")
    wait_until(lambda: taken() == expected(1), what="a run of each for the first file")
    (row,) = triggers()
    assert (row["watcher"], row["lane"], row["task_id"]) == ("folder", "poll", None)
    assert "polled by triggerer" in daemons.cli("triggers", "why", str(row["trigger_id"])).stdout
    (asset,) = daemons.json("assets", "list")
    assert [(one["name"], one["dag_id"]) for one in asset["watched_by"]] == [
        ("folder", "one"),
        ("folder", "two"),
    ]
    started["triggerer"].kill()
    put("f1")
    daemons.start("triggerer")
    wait_until(lambda: taken() == expected(2), what="the run after the take-over")
    assert [one["trigger_id"] for one in triggers()] == [row["trigger_id"]]
    daemons.cli("dags", "pause", "one")
    daemons.cli("dags", "pause", "two")
    assert triggers() == []
    put("f2")
    daemons.cli("dags", "unpause", "one")
    wait_until(lambda: len(taken()["one"]) == 3, what="the one that is not paused any more")
    assert taken() == {"one": expected(3)["one"], "two": expected(2)["two"]}
    (event, *_) = daemons.json("assets", "details", "drop")
    assert (event["watcher"], event["extra"]) == ("folder", {"name": "f2"})
