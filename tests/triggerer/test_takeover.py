"""Two triggerers of two hosts: who dies is replaced, who slept is fenced, an outage kills nobody.

The hosts are told apart by their host ids, so each judges the other by its lease alone. What took
how long is read from the database's own clock.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from roost.models.engine import CONNECT_TIMEOUT_S
from roost.models.queries import jobs
from roost.support.clock import now_us
from roost.support.service import LONGEST_ATTEMPT_S, LONGEST_WAIT_S, NEWCOMER_S
from tests.chaos.bed import INJECT
from tests.support.daemons import Daemon, Daemons
from tests.support.waiting import wait_until
from tests.triggerer.test_daemon import CODE, appears, owner, runner_of, wait_events, wait_owned
from tests.triggerer.world import World

_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_LIVES = "SELECT id FROM job WHERE pid = :pid AND ended_at IS NULL"
_CODE = (
    CODE
    + """

class Mine(Appears):
    '''Fires when its file is there, or one for the very process that it runs in.'''

    def serialize(self):
        return ("Mine", {"path": self.path, "log": self.log})

    async def run(self):
        self.note("run")
        while not (os.path.exists(self.path) or os.path.exists(f"{self.path}.{os.getpid()}")):
            await asyncio.sleep(0.02)
        self.note("fire")
        yield TriggerEvent(os.getpid())
"""
)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def world(database_url: str, roost_home: Path) -> World:
    return World(database_url, roost_home / "dags", _CODE)


def start(daemons: Daemons, host: str) -> Daemon:
    """A triggerer of a host of its own."""
    return daemons.start("triggerer", env={"ROOST_CHAOS_HOST": host, "PYTHONPATH": str(INJECT)})


@contextmanager
def outage(url: str) -> Iterator[Callable[[Any], Iterable[Any]]]:
    """Nobody reaches the database but who runs statements by what this gives."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = sqlite3.connect(str(parsed.database), isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        yield file.execute
        file.execute("COMMIT")
        file.close()
        return
    dsn = f"host={parsed.host} port={parsed.port} user={parsed.username} dbname="
    name = sql.Identifier(str(parsed.database))
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with (
        psycopg.connect(f"{dsn}{parsed.database}", autocommit=True) as held,
        psycopg.connect(f"{dsn}postgres", autocommit=True) as admin,
    ):
        admin.execute(allow.format(name, sql.SQL("false")))
        held.execute(_TERMINATE)
        yield held.execute
        admin.execute(allow.format(name, sql.SQL("true")))


def test_settings_leave_time_for_a_takeover() -> None:
    """Invariants L4, S15: who dies is noticed within 15 s; who waits for the database is not dead.

    A look at the end of a lease comes within a second of it, a newcomer's first one as well.
    """
    assert LONGEST_ATTEMPT_S >= CONNECT_TIMEOUT_S
    assert LONGEST_WAIT_S + LONGEST_ATTEMPT_S <= NEWCOMER_S < jobs.LEASE_TTL_S
    assert max(jobs.LEASE_TTL_S, NEWCOMER_S) + 1 < 15
    assert jobs.LEASE_RENEW_S * 2 < jobs.LEASE_TTL_S


def test_another_host_takes_over_when_the_lease_is_over_d17(
    world: World, daemons: Daemons, tmp_path: Path
) -> None:
    """SIGKILL to supervisor and runner: no pid can be asked, so the lease decides, not before."""
    numbers = world.defer([appears(tmp_path / "file") for _ in range(20)])
    first = start(daemons, "a")
    wait_owned(world, 20, dead := owner(world, first))
    second = start(daemons, "b")
    wait_until(lambda: 0 < world.count(f"job_id = {dead}") < 20, what="the second to have its part")
    first.kill()
    wait_owned(world, 20, owner(world, second))
    (job,) = world.rows("SELECT lease_until, ended_at FROM job WHERE id = :id", id=dead)
    assert job["ended_at"] >= job["lease_until"]
    (tmp_path / "file").touch()
    wait_events(world, *numbers)
    assert max(event["epoch"] for event in world.events().values()) > 1


@pytest.mark.parametrize("whole", [False, True])
def test_what_fired_while_its_triggerer_slept_is_refused_d17(
    world: World, daemons: Daemons, tmp_path: Path, whole: bool
) -> None:
    """invariant S15: the runner of a stopped supervisor fires, and a peer has taken over.

    ``whole``: the runner was stopped, too, as with a host that is suspended, and wakes first.
    """
    log, flag = tmp_path / "log", tmp_path / "file"
    (number,) = world.defer([{"cls": "Mine", "kwargs": {"path": str(flag), "log": str(log)}}])
    stale = start(daemons, "a")
    wait_owned(world, 1, old := owner(world, stale))
    wait_until(log.exists, what="the trigger to run")
    old_runner = runner_of(stale)
    stale.signal(signal.SIGSTOP)
    if whole:
        os.kill(old_runner, signal.SIGSTOP)
    world.rows("UPDATE job SET lease_until = 0 WHERE id = :id", id=old)
    peer = start(daemons, "b")
    wait_owned(world, 1, owner(world, peer))
    flag.with_name(f"file.{old_runner}").touch()
    if whole:
        assert "fire" not in log.read_text()
        os.kill(old_runner, signal.SIGCONT)
    wait_until(lambda: f"fire {old_runner}" in log.read_text(), what="the stale runner to fire")
    stale.signal(signal.SIGCONT)
    wait_until(lambda: world.rows(_LIVES, pid=stale.pid), what="it to join anew")
    assert world.events() == {}
    flag.touch()
    wait_events(world, number)
    event = world.events()[number]
    assert event["epoch"] > 1
    assert event["value"] != old_runner


def test_an_outage_longer_than_a_lease_ends_nobody(
    world: World, daemons: Daemons, tmp_path: Path, database_url: str
) -> None:
    """invariant S15: when the database is back, leases are over and nobody is declared dead."""
    numbers = world.defer([appears(tmp_path / "file") for _ in range(20)])
    first = start(daemons, "a")
    wait_owned(world, 20, owner(world, first))
    second = start(daemons, "b")
    wait_until(
        lambda: 0 < world.count(f"job_id = {owner(world, second)}") < 20,
        what="the second to have its part",
    )
    with outage(database_url) as db:
        held = "SELECT id FROM job WHERE lease_until >= {}"
        wait_until(lambda: not list(db(held.format(now_us()))), 60, "all leases to be over")
        over = now_us()
    lapsed = "SELECT 1 FROM job WHERE lease_until < :over"
    wait_until(lambda: not world.rows(lapsed, over=over), 60, "everybody to renew")
    jobs_now = world.rows("SELECT pid FROM job WHERE ended_at IS NULL")
    assert sorted(row["pid"] for row in jobs_now) == sorted([first.pid, second.pid])
    (tmp_path / "file").touch()
    wait_events(world, *numbers)
    assert (first.process.poll(), second.process.poll()) == (None, None)


def test_a_stopped_triggerer_is_listed_with_what_is_wrong(
    world: World, daemons: Daemons, roost_home: Path
) -> None:
    """While nobody takes over it says so in ``jobs list``; a peer that does ends its job."""
    stale = start(daemons, "a")
    job = owner(world, stale)

    def listed() -> list[Any]:
        rows = json.loads(daemons.cli("jobs", "list", "--output", "json").stdout)
        return [row for row in rows if row["id"] == job]

    assert [row["healthy"] for row in listed()] == [True]
    stale.signal(signal.SIGSTOP)
    world.rows("UPDATE job SET lease_until = 0 WHERE id = :id", id=job)
    (row,) = listed()
    assert (row["pid"], row["healthy"]) == (stale.pid, False)
    assert "has not renewed its lease for" in row["trouble"]
    start(daemons, "b")
    wait_until(lambda: not listed(), what="its peer to end its job")
    stale.signal(signal.SIGCONT)
