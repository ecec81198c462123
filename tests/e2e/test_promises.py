"""What Roost promises, shown with real processes on both databases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.witness import bodies, dag_source, most_at_once, overlapping
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_MOVES = "SELECT ti_id, event, to_state, trigger_id FROM event_log WHERE ti_id > 0 ORDER BY id"


def states(url: str) -> Counter[str]:
    """How many task instances there are in each state."""
    rows = fetch(url, "SELECT state, count(*) AS n FROM task_instance GROUP BY state")
    return Counter({row["state"]: row["n"] for row in rows})


def dag_is_known(url: str) -> bool:
    return bool(fetch(url, "SELECT 1 FROM dag WHERE is_active"))


def run_state(url: str) -> str:
    (row,) = fetch(url, "SELECT state FROM dag_run")
    return str(row["state"])


def wait_success(url: str, timeout: float = 120) -> None:
    """Until the one run has ended; it must have succeeded."""
    wait_until(lambda: run_state(url) not in ("queued", "running"), timeout, f"{states(url)}")
    assert run_state(url) == "success", states(url)


@pytest.mark.timeout(180)
def test_deferred_tasks_hold_no_slot(daemons: Daemons, database_url: str, roost_home: Path) -> None:
    """500 tasks wait at once with parallelism 2: never more than 2 slots, and all resume."""
    number, witness, landed = 500, roost_home / "witness", roost_home / "landed"
    source = dag_source(witness, plain=0, waiting=number, wait=landed)
    (roost_home / "dags" / "d.py").write_text(source)
    daemons.env["ROOST__CORE__PARALLELISM"] = "2"
    daemons.start_all()
    wait_until(lambda: dag_is_known(database_url), what="the DAG")
    daemons.cli("dags", "trigger", "witnessed")
    wait_until(lambda: states(database_url) == {"deferred": number}, 90, "all to be deferred")
    landed.touch()
    wait_success(database_url, 150)

    moves = fetch(database_url, _MOVES)
    history = [(row["ti_id"], row["to_state"]) for row in moves]
    assert most_at_once(history, {"queued", "running"}) <= 2
    assert most_at_once(history, {"deferred"}) == number
    resumed = Counter(body.task_id for body in bodies(witness) if body.phase == "resume")
    assert set(resumed.values()) == {1}
    assert len(resumed) == number


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["scheduler", "triggerer", "worker"])
def test_a_killed_daemon_loses_nothing_and_repeats_nothing(
    daemons: Daemons, database_url: str, roost_home: Path, victim: str
) -> None:
    """SIGKILL in the middle of 200 tasks, half of them deferred; then a new one is started."""
    witness = roost_home / "witness"
    source = dag_source(witness, plain=100, waiting=100, wait=1, body_s=0.1)
    (roost_home / "dags" / "d.py").write_text(source)
    running = dict(zip(("scheduler", "triggerer", "worker"), daemons.start_all(), strict=True))
    wait_until(lambda: dag_is_known(database_url), what="the DAG")
    daemons.cli("dags", "trigger", "witnessed")

    def busy() -> bool:
        now = states(database_url)
        return now["success"] >= 20 and now["running"] > 0 and now["deferred"] > 0

    wait_until(busy, 60, "some to be done, some running, some deferred")
    running[victim].kill()
    daemons.start(victim)
    wait_success(database_url)

    assert states(database_url) == {"success": 200}
    found = bodies(witness)
    assert overlapping(found) == []
    moves = fetch(database_url, _MOVES)
    resumes = Counter(row["trigger_id"] for row in moves if row["event"] == "resume")
    assert len(resumes) == 100
    assert set(resumes.values()) == {1}
    begun = Counter((body.task_id, body.phase) for body in found)
    if victim == "worker":
        # Bodies die with it and run again as a new dispatch; each ends at least once.
        ended = {(body.task_id, body.phase) for body in found if body.ended is not None}
        assert ended == set(begun)
    else:
        assert set(begun.values()) == {1}
    assert len(begun) == 300
