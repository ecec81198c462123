"""Tasks that start in their triggers, with real daemons and in one process (D12)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from roost.cli.main import cli
from roost.support.crypto import new_key
from roost.testing import Simulation, Stub, run_dag
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until
from tests.triggerer import start_triggers

SOURCE = Path(start_triggers.__file__).read_text()
STATES = {
    "before": "success",
    "fires": "success",
    "asks": "success",
    "ends": "success",
    "moment": "success",
    "event": "success",
    "wrong": "failed",
    "mapped[0]": "success",
    "mapped[1]": "success",
}
_NAME = "t.task_id || CASE WHEN t.map_index < 0 THEN '' ELSE '[' || t.map_index || ']' END"
_STATES = f"SELECT {_NAME} AS name, t.state FROM task_instance t"  # noqa: S608 - a constant
_MOVES = (
    f"SELECT {_NAME} AS name, e.event FROM event_log e "  # noqa: S608
    "JOIN task_instance t ON t.id = e.ti_id ORDER BY e.id"
)
_FAILED = "SELECT reason FROM event_log WHERE event = 'fail' AND ti_id IS NOT NULL"
_XCOMS = (
    f"SELECT {_NAME} AS name, x.value FROM xcom x "  # noqa: S608
    "JOIN task_instance t ON t.id = x.ti_id"
)


@pytest.mark.timeout(120)
def test_with_daemons_no_worker_is_asked_before_the_event_d12(
    daemons: Daemons, database_url: str, roost_home: Path
) -> None:
    """One start at most, after the event; rendered with what a task would see."""
    (roost_home / "dags" / "starts.py").write_text(SOURCE)
    daemons.env["ROOST__SECURITY__ENCRYPTION_KEY"] = new_key()
    daemons.start_all()
    wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
    daemons.cli("variables", "set", "city", "Oslo")
    day = "2026-05-01"
    daemons.cli(
        "dags", "trigger", "starts", "--run-id", "r", "--logical-date", day, "--conf", '{"x": "y"}'
    )
    daemons.cli("events", "send", f"starts/{day}", "--payload", '{"by": "me"}')

    def states() -> dict[str, str]:
        rows = fetch(database_url, _STATES)
        return {row["name"]: row["state"] for row in rows}

    wait_until(lambda: states() == STATES, 60, "all to end")
    moves = fetch(database_url, _MOVES)
    log = {name: [row["event"] for row in moves if row["name"] == name] for name in STATES}
    assert log["ends"] == ["schedule", "start_deferred", "succeed"]
    assert log["wrong"] == ["schedule", "start_deferred", "fail"]
    for name in ("fires", "asks", "moment", "event", "mapped[0]", "mapped[1]"):
        assert log[name] == back_by_worker(), name
    values = {row["name"]: json.loads(row["value"]) for row in fetch(database_url, _XCOMS)}
    assert values["asks"]["event"] == {
        "conf": "y", "ids": ["r", "asks", "asks", "starts"], "var": "Oslo",
        "pulled": "left", "plain": 5, "macro": "X",
    }  # fmt: skip
    assert values["ends"] == {"ds": day}
    assert values["event"] == {"event": {"by": "me"}, "more": 3, "try": 1}
    assert values["mapped[0]"]["event"] == {"n": "0"}
    assert values["mapped[1]"]["event"] == {"n": day.replace("-", "")}
    (failed,) = fetch(database_url, _FAILED)
    assert re.search(r"trigger_kwargs cannot be rendered.*'nothing' is undefined", failed["reason"])


def test_in_a_simulation_templates_see_what_a_task_would_d12() -> None:
    """``roost.testing``: context, params, Variables, XComs, the user's macros, map_index."""
    with Simulation(start_triggers.dag, variables={"city": "Oslo"}) as world:
        ds = world.now.date().isoformat()
        run = world.trigger(conf={"x": "given"}, run_id="r")
        world.send_event(f"starts/{ds}", {"by": "me"})
        world.run()
        assert run.states == STATES
        assert run["fires"].xcom() == {"event": {"where": ds}, "more": 1, "try": 1}
        assert run["asks"].xcom()["event"] == {
            "conf": "given", "ids": ["r", "asks", "asks", "starts"], "var": "Oslo",
            "pulled": "left", "plain": 5, "macro": "X",
        }  # fmt: skip
        assert run["ends"].xcom("told") == {"ds": ds}
        assert run["event"].xcom()["event"] == {"by": "me"}
        assert run["moment"].events == back_by_worker()


def test_a_stub_stands_in_for_the_trigger_too_d12() -> None:
    """``roost.testing``."""
    run = run_dag(start_triggers.dag, stubs={"*": Stub(returns=1), "starts.fires": Stub(returns=2)})
    assert set(run.states.values()) == {"success"}
    assert run["fires"].xcom() == 2
    assert "start_deferred" not in run["ends"].events


def back_by_worker() -> list[str]:
    """The moves of a task that starts in its trigger and ends in a worker."""
    return ["schedule", "start_deferred", "resume", "enqueue", "start", "succeed"]


def test_in_one_process_it_is_the_same_d12(roost_home: Path, monkeypatch: Any) -> None:
    """``roost dags test``."""
    (roost_home / "dags" / "starts.py").write_text(SOURCE)
    monkeypatch.setenv("ROOST_HOME", str(roost_home))
    monkeypatch.setenv("ROOST_VAR_CITY", "Oslo")
    args = ["dags", "test", "starts", "2026-05-01", "--event", 'starts/2026-05-01={"by": "me"}']
    result = CliRunner().invoke(cli, args)
    lines = [line.split() for line in result.stdout.splitlines()]
    ends = {words[0]: words[1] for words in lines if len(words) > 1 and words[0] in STATES}
    assert ends == STATES, result.output
    assert "'nothing' is undefined" in result.output
