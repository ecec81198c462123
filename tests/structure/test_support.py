"""The suite's own tools: fresh databases, and processes that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.support.databases import fetch
from tests.support.postgres import PostgresServer
from tests.support.processes import descendants, kill_leftovers, with_environment
from tests.support.waiting import wait_until


@pytest.mark.parametrize("round_", [1, 2])
def test_every_test_gets_a_fresh_migrated_database(database_url: str, round_: int) -> None:
    assert fetch(database_url, "SELECT count(*) AS n FROM variable") == [{"n": 0}]
    fetch(database_url, "INSERT INTO variable (key, value) VALUES (:key, 'x')", key=f"k{round_}")
    assert fetch(database_url, "SELECT key FROM variable") == [{"key": f"k{round_}"}]


def test_an_empty_database_has_no_tables(empty_database_url: str) -> None:
    with pytest.raises(Exception, match=r"no such table|does not exist"):
        fetch(empty_database_url, "SELECT 1 FROM job")


def test_the_server_ends_when_the_process_it_serves_is_killed() -> None:
    watched = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with PostgresServer(watched_pid=watched.pid) as server:
        assert server.info is not None
        scratch = Path(server.info.socket_dir).parent
        ended = os.pidfd_open(server.info.server_pid)
        os.close(ended)
        watched.kill()
        watched.communicate()
        wait_until(lambda: not scratch.exists(), what="the server's files to go")
        with pytest.raises(ProcessLookupError):
            os.kill(server.info.server_pid, 0)


def test_a_durable_server_keeps_what_it_committed_when_it_crashes() -> None:
    with PostgresServer(durable=True, options=("fsync=off",)) as server:
        assert server.info is not None
        url = server.info.url("postgres")
        fetch(url, "CREATE TABLE kept AS SELECT 1 AS n")
        server.crash()
        server.restart()

        def answers() -> list[dict[str, int]]:
            with suppress(OperationalError):
                return fetch(url, "SELECT n FROM kept")
            return []

        assert wait_until(answers, what="the server to recover") == [{"n": 1}]


def test_leftovers_are_found_by_family_and_by_environment_and_killed() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "ROOST_HOME": f"test-{os.getpid()}"},
        stdin=subprocess.PIPE,
    )
    try:
        family = wait_until(lambda: descendants(parent.pid))
        assert family < with_environment(f"ROOST_HOME=test-{os.getpid()}")
        assert len(kill_leftovers(family)) == 1
        assert kill_leftovers(family) == []
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
