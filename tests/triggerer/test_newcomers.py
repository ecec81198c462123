"""A daemon that begins after an outage: it knows of none, and others may still be renewing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from roost.models.engine import open_engine, transact
from roost.models.queries import jobs
from roost.support.clock import SECOND
from roost.support.processes import Process
from tests.support.daemons import Daemons
from tests.support.databases import fetch, migrate
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

_FAR = Process("other", "boot:elsewhere", 1, 1, "token")
_STARTED = (
    "SELECT CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint) AS started"
)
pytestmark = pytest.mark.timeout(120)


def starts(url: str) -> list[dict[str, int]]:
    """When the server started; empty while it is away."""
    with suppress(OperationalError):
        return fetch(url, _STARTED)
    return []


@pytest.mark.parametrize("command", ["scheduler", "triggerer"])
def test_nobody_is_dead_before_he_could_renew_again_invariant_s15(
    command: str, roost_home: Path
) -> None:
    """Its lease is over when the server is back, and whoever begins then gives it its time."""
    with PostgresServer(durable=True, options=("fsync=off",)) as server:
        assert server.info is not None
        url = server.info.url("postgres")
        migrate(url)
        engine = open_engine(url)
        job_id = transact(engine, lambda tx: jobs.register(tx, "triggerer", _FAR, "/run"))
        engine.dispose()
        fetch(url, "UPDATE job SET lease_until = 0")
        before = starts(url)
        server.restart()
        wait_until(lambda: starts(url) not in ([], before), what="the new server")
        (started,) = starts(url)
        daemons = Daemons(roost_home)
        daemons.start(command, env={"ROOST__DATABASE__URL": url})
        ended = "SELECT ended_at FROM job WHERE id = :id AND ended_at IS NOT NULL"
        wait_until(lambda: fetch(url, ended, id=job_id), 60, "the far one to be declared dead")
        (job,) = fetch(url, ended, id=job_id)
        daemons.close()
    assert job["ended_at"] - started["started"] >= jobs.LEASE_TTL_S * SECOND
