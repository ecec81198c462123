"""Daemons in several places on one PostgreSQL wake each other; those in one place pay nothing.

Polling is out of the question here: the poll interval is an hour, so whatever moves was rung for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from roost.models.engine import driver_arguments, open_engine
from roost.support.crypto import KEY_FILE, new_key
from tests.support.daemons import Daemons
from tests.support.databases import Databases, fetch
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

_DAG = """\
from datetime import datetime, timedelta
from roost.dag import DAG, chain
from roost.operators import BaseOperator, PythonOperator
from roost.triggers import TimeDeltaTrigger


class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="execute_complete")

    def execute_complete(self, context, event):
        return None


with DAG("chained", schedule=None, start_date=datetime(2026, 1, 1)):
    tasks = [PythonOperator(task_id=f"t{n}", python_callable=print) for n in range(4)]
    chain(*tasks[:2], Waits(task_id="waits"), *tasks[2:])
"""
_RENEWED = "SELECT kind FROM job WHERE ended_at IS NULL AND lease_until - started_at > 13000000"


class Places:
    """Homes that share one database, and a connection that hears every NOTIFY."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.url = url
        self._folder = folder
        self._stack = stack
        self._key = new_key()  # all hosts have the same
        engine = open_engine(url)
        arguments = driver_arguments(engine)
        engine.dispose()
        assert arguments is not None
        arguments["application_name"] = "test"
        self.listener = stack.enter_context(psycopg.connect(**arguments, autocommit=True))
        for kind in ("scheduler", "worker", "triggerer"):
            self.listener.execute(f"LISTEN roost_{kind}".encode())

    def home(self, name: str) -> Daemons:
        """A new home whose daemons poll once an hour."""
        home = self._folder / name
        (home / "dags").mkdir(parents=True)
        (home / "roost.toml").write_text(
            f'[database]\nurl = "{self.url}"\n[scheduler]\npoll_interval = 3600\n'
        )
        (home / KEY_FILE).write_text(self._key)
        made = Daemons(home)
        self._stack.callback(made.close)
        return made

    def notified(self) -> set[str]:
        """The channels that something was sent on since the last time."""
        self.listener.execute("SELECT 1")
        return {note.channel for note in self.listener.notifies(timeout=0)}

    def lines(self) -> int:
        """How many connections serve bells."""
        (row,) = fetch(
            self.url,
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'roost bell'",
        )
        return int(row["n"])

    def run_chain(self, by: Daemons) -> None:
        """Trigger a run with a command of the home ``by`` and wait until it has succeeded."""
        wait_until(lambda: fetch(self.url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
        by.cli("dags", "trigger", "chained")
        wait_until(lambda: self._states() not in (["queued"], ["running"]), 60, "the run")
        assert self._states() == ["success"]

    def _states(self) -> list[str]:
        return [str(row["state"]) for row in fetch(self.url, "SELECT state FROM dag_run")]


@pytest.fixture
def places(databases: Databases, tmp_path: Path) -> Iterator[Places]:
    with databases.postgresql() as url, ExitStack() as stack:
        yield Places(url, tmp_path, stack)


def test_a_chain_runs_across_places_without_polling(places: Places) -> None:
    """Scheduler here, worker and triggerer there, the command from a third place."""
    here, there, desk = (places.home(name) for name in ("here", "there", "desk"))
    (here.home / "dags" / "chained.py").write_text(_DAG)
    here.start("scheduler")
    there.start_all("worker", "triggerer")
    wait_until(lambda: places.lines() == 3, what="everybody to know of the others")
    places.run_chain(by=desk)
    assert places.notified() == {"roost_scheduler", "roost_worker", "roost_triggerer"}


def test_one_place_sends_nothing_and_connects_no_more(places: Places) -> None:
    home = places.home("home")
    (home.home / "dags" / "chained.py").write_text(_DAG)
    home.start_all()
    places.run_chain(by=home)
    wait_until(lambda: len(fetch(places.url, _RENEWED)) == 3, what="renewals after the first")
    assert places.notified() == set()
    assert places.lines() == 0
