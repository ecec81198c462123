"""PgNotifyTrigger against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from roost.exceptions import RoostException
from roost.sensors import PgNotifySensor
from roost.support import typedjson
from roost.triggers import PgNotifyEventTrigger, PgNotifyTrigger
from tests.dag.case import a_dag, raw, run
from tests.triggers.case import descriptors, until, waiting
from tests.triggers.watching import watching


class Server:
    """The server, as someone else who uses it."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.dsn = f"postgresql://postgres@{self.url.host}:{self.url.port}/{self.url.database}"
        self.db = psycopg.connect(self.dsn, autocommit=True)

    def do(self, sql: str, *values: Any) -> list[Any]:
        cursor = self.db.execute(sql, values)
        return cursor.fetchall() if cursor.description else []

    def ours(self) -> list[int]:
        """The pids of the connections that triggers have."""
        found = self.do(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'roost triggerer'"
        )
        return [pid for (pid,) in found]

    def listening(self, channel: str = "") -> bool:
        """Whether the newest statement of a trigger's connection was a LISTEN, and is done."""
        found = self.do(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'roost triggerer' "
            "AND state = 'idle' AND query LIKE 'LISTEN%%' AND strpos(query, %s) > 0",
            channel,
        )
        return bool(found)


@pytest.fixture
def server(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server(postgresql_url)
    monkeypatch.setenv("ROOST_CONN_PG", found.dsn)
    yield found
    found.do("DROP TABLE IF EXISTS landed")
    found.db.close()


def test_a_notify_fires_and_the_connection_is_given_back(server: Server) -> None:
    async def main() -> None:
        async with waiting(PgNotifyTrigger("pg", "files")) as (one,):
            await until(server.listening)
            server.do("NOTIFY other, 'x'")
            server.do("NOTIFY files, 'a.csv'")
            assert await one.payload() == {"channel": "files", "payload": "a.csv"}
        await until(lambda: not server.ours())

    asyncio.run(main())


def test_triggers_of_one_connection_share_it_and_are_told_apart(server: Server) -> None:
    async def main() -> None:
        async with waiting(
            PgNotifyTrigger("pg", "files", "a"),
            PgNotifyTrigger("pg", "files", {"id": 7, "state": "done"}),
            PgNotifyTrigger("pg", 'Odd "name"'),
            PgNotifyTrigger("pg", "files", "never"),
        ) as (text, item, odd, never):
            await until(lambda: server.listening("files"))  # the last of both channels
            for payload in ("b", "[7]", '{"id": 7}', "{", '{"id": 8, "state": "done"}'):
                server.do("SELECT pg_notify('files', %s)", payload)
            server.do("SELECT pg_notify('files', 'a')")
            assert (await text.payload())["payload"] == "a"
            assert not item.done
            done = json.dumps({"id": 7, "state": "done", "more": [1]})
            server.do("SELECT pg_notify('files', %s)", done)
            assert (await item.payload())["payload"] == done
            server.do("""SELECT pg_notify('Odd "name"', '')""")
            assert await odd.payload() == {"channel": 'Odd "name"', "payload": ""}
            assert len(server.ours()) == 1
            assert not never.done

    asyncio.run(main())


def test_what_was_there_before_it_listened_is_found_by_the_query(server: Server) -> None:
    server.do("CREATE TABLE landed (name text)")
    server.do("INSERT INTO landed VALUES ('early')")
    server.do("NOTIFY files, 'early'")  # to nobody: lost

    async def main() -> None:
        query = "SELECT name FROM landed"
        async with waiting(PgNotifyTrigger("pg", "files", check_sql=query)) as (one,):
            told = {"channel": "files", "payload": None, "found": "early"}
            assert await one.payload() == told

    asyncio.run(main())


def test_the_query_is_asked_again_now_and_then(server: Server) -> None:
    server.do("CREATE TABLE landed (name text)")

    async def main() -> None:
        query = "SELECT count(*) FROM landed"
        trigger = PgNotifyTrigger("pg", "files", "x", query, check_interval=0.05)
        async with waiting(trigger) as (one,):
            await until(server.ours)
            server.do("INSERT INTO landed VALUES ('quietly')")
            assert (await one.payload())["found"] == 1

    asyncio.run(main())


def test_it_listens_again_when_the_server_was_gone(server: Server) -> None:
    """What was sent meanwhile is lost, unless the query finds it."""
    server.do("CREATE TABLE landed (name text)")
    other = psycopg.connect(server.dsn.rpartition("/")[0] + "/postgres", autocommit=True)
    name = server.url.database

    async def main() -> None:
        query = "SELECT name FROM landed"
        async with waiting(
            PgNotifyTrigger("pg", "files"), PgNotifyTrigger("pg", "files", "x", check_sql=query)
        ) as (plain, checked):
            await until(server.ours)
            (first,) = server.ours()
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            try:
                server.do("SELECT pg_terminate_backend(%s)", first)
                await until(lambda: first not in server.ours())
                server.do("INSERT INTO landed VALUES ('meanwhile')")
                server.do("NOTIFY files, 'meanwhile'")
            finally:
                other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert (await checked.payload())["found"] == "meanwhile"
            assert not plain.done
            server.do("NOTIFY files, 'after'")
            assert (await plain.payload())["payload"] == "after"

    asyncio.run(main())
    other.close()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgres://nobody:secret99@{host}:{port}/{database}", 'role "nobody" does not exist'),
        ("postgres://postgres@{host}:{port}/nowhere", 'database "nowhere" does not exist'),
        ("sqlite:///x.db", "needs one of the type postgres"),
        (None, "The conn_id `pg` isn't defined|Connection 'pg'"),
    ],
)
def test_wrong_credentials_are_one_line_that_names_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch, uri: str | None, said: str
) -> None:
    if uri is None:
        monkeypatch.delenv("ROOST_CONN_PG")
    else:
        url = server.url
        text = uri.format(host=url.host, port=url.port, database=url.database)
        monkeypatch.setenv("ROOST_CONN_PG", text)

    async def main() -> None:
        async with waiting(PgNotifyTrigger("pg", "a"), PgNotifyTrigger("pg", "b")) as them:
            for one in them:
                with pytest.raises(RoostException, match=said) as caught:
                    await one.payload()
                text = str(caught.value)
                assert "pg" in text and "\n" not in text and "secret99" not in text

    asyncio.run(main())


def test_a_wrong_query_fails_its_own_trigger(server: Server) -> None:
    async def main() -> None:
        wrong = PgNotifyTrigger("pg", "files", check_sql="SELECT x FROM no_such_table")
        async with waiting(wrong, PgNotifyTrigger("pg", "files")) as (one, other):
            with pytest.raises(
                RoostException, match=r"connection 'pg': .*no_such_table.* in check"
            ):
                await one.payload()
            server.do("NOTIFY files")
            await other.payload()

    asyncio.run(main())


def test_nothing_is_left_open_when_all_are_cancelled(server: Server) -> None:
    before = descriptors()

    async def main() -> None:
        async with waiting(*[PgNotifyTrigger("pg", f"c{n % 7}") for n in range(50)]):
            await until(server.listening)
        await until(lambda: not server.ours())

    asyncio.run(main())
    assert descriptors() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "c"), "needs a conn_id"),
        (("pg", ""), "a channel of 1 to 63 bytes"),
        (("pg", "x" * 64), "a channel of 1 to 63 bytes"),
        (("pg", "c", 3), "payload must be a text or a dict"),
        (("pg", "c", None, None, 0), "check_interval must be more than 0"),
    ],
)
def test_arguments(arguments: Any, said: str) -> None:
    with pytest.raises(RoostException, match=said):
        PgNotifyTrigger(*arguments)


def test_pg_notify_sensor_defers_at_once_and_returns_what_it_was_told() -> None:
    sensor = PgNotifySensor(
        task_id="s",
        channel="loads",
        payload={"day": "{{ ds }}"},
        check_sql="SELECT '{{ ds }}'",
        soft_fail=True,
        timeout=60,
        dag=a_dag(),
    )
    spec = run(sensor)[0].defer
    assert spec is not None
    assert (spec.lane, spec.on_timeout, spec.timeout_us) == ("poll", "skip", 60_000_000)
    assert spec.source == "roost.triggers.postgres:PgNotifyTrigger"
    kwargs: Any = typedjson.decode(spec.kwargs)
    assert kwargs["conn_id"] == "postgres_default"
    assert (kwargs["payload"], kwargs["check_sql"]) == (
        {"day": "2026-01-31"},
        "SELECT '2026-01-31'",
    )
    event = {"channel": "loads", "payload": "x"}
    resumed = run(sensor, next_method=spec.next_method, next_kwargs=raw({"event": event}))
    assert resumed[1] == {"return_value": event}


def test_a_watcher_has_an_event_of_each_notify(server: Server) -> None:
    """D13: one connection for all; only what each asks for."""
    every, some = PgNotifyEventTrigger("pg", "news"), PgNotifyEventTrigger("pg", "news", {"n": 2})

    async def main() -> None:
        async with watching(every, some) as ((one, two), _):
            await until(server.listening)
            for number in range(3):
                server.do("SELECT pg_notify('news', %s)", json.dumps({"n": number}))
            assert [extra["payload"] for extra in await one.has(3)] == [
                '{"n": 0}', '{"n": 1}', '{"n": 2}',
            ]  # fmt: skip
            assert await two.has(1) == [{"channel": "news", "payload": '{"n": 2}'}]
            assert len(server.ours()) == 1
        await until(lambda: not server.ours())

    asyncio.run(main())
