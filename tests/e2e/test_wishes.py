"""Clearing and marking what runs, with real processes: the old copy is dead before the new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from roost.support.processes import start_ticks
from tests.e2e.test_promises import dag_is_known, run_state
from tests.support.daemons import Daemons
from tests.support.databases import fetch
from tests.support.waiting import wait_until

_SOURCE = """\
import os
import time
from pathlib import Path

from roost.dag import DAG
from roost.operators import BaseOperator
from roost.support.processes import start_ticks

WITNESS = Path({witness!r})


def note(*words):
    with WITNESS.open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


class Body(BaseOperator):
    def execute(self, context):
        lines = [line.split() for line in WITNESS.read_text().splitlines()]
        alive = [x[1] for x in lines if x[0] == "begin" and start_ticks(int(x[1])) == int(x[2])]
        note("begin", os.getpid(), start_ticks(os.getpid()), "beside", *alive)
        while not Path({landed!r}).exists():
            time.sleep(0.02)
        note("end", os.getpid())

    def on_kill(self):
        note("on_kill", os.getpid())


with DAG("long", schedule=None):
    Body(task_id="body")
"""


@pytest.fixture
def begun(daemons: Daemons, database_url: str, roost_home: Path) -> Callable[[], list[list[str]]]:
    """A run whose task does not end by itself; gives what its bodies noted, begins only."""
    witness, landed = roost_home / "witness", roost_home / "landed"
    witness.touch()
    source = _SOURCE.format(witness=str(witness), landed=str(landed))
    (roost_home / "dags" / "d.py").write_text(source)
    daemons.start_all("scheduler", "worker")
    wait_until(lambda: dag_is_known(database_url), what="the DAG")
    daemons.cli("dags", "trigger", "long", "--run-id", "r")

    def begins() -> list[list[str]]:
        lines = [line.split() for line in witness.read_text().splitlines()]
        return [line for line in lines if line[0] == "begin"]

    wait_until(lambda: len(begins()) == 1, what="the task to run")
    return begins


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["nobody", "scheduler", "worker"])
def test_a_running_task_that_is_cleared_dies_before_it_runs_again(
    daemons: Daemons,
    database_url: str,
    roost_home: Path,
    begun: Callable[[], list[list[str]]],
    victim: str,
) -> None:
    """Nobody, the scheduler or the worker is killed right after the clear (invariant S1)."""
    told = daemons.cli("tasks", "clear", "long", "--run-id", "r", "-y").stdout
    assert "1 of them queued or running: ended first" in told
    if victim != "nobody":
        (daemon,) = (one for one in daemons.started if one.name.startswith(victim))
        daemon.kill()
        daemons.start(victim)
    wait_until(lambda: len(begun()) == 2, 60, "the task to run again")
    assert [line[4:] for line in begun()] == [[], []]  # beside nobody
    assert start_ticks(int(begun()[0][1])) is None
    if victim == "nobody":
        assert f"on_kill {begun()[0][1]}" in (roost_home / "witness").read_text()
    (roost_home / "landed").touch()
    wait_until(lambda: run_state(database_url) == "success", 60, "the run to end")
    (row,) = fetch(database_url, "SELECT try_number, first_try FROM task_instance")
    assert (row["try_number"], row["first_try"]) == (2, 1)


@pytest.mark.timeout(120)
def test_a_running_task_that_is_marked_is_killed(
    daemons: Daemons, database_url: str, roost_home: Path, begun: Callable[[], list[list[str]]]
) -> None:
    """Its run ends at once as marked, and nothing of it is left."""
    daemons.cli("dags", "mark", "long", "r", "failed", "-y")
    wait_until(lambda: run_state(database_url) == "failed", 60, "the run to end")
    (line,) = begun()
    assert start_ticks(int(line[1])) is None
    (row,) = fetch(database_url, "SELECT state FROM task_instance")
    assert row["state"] == "failed"
