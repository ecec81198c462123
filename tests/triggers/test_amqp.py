"""AmqpTrigger and AmqpSensor, against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
import pytest

from roost.exceptions import RoostException
from roost.sensors import AmqpSensor
from roost.triggers import AmqpEventTrigger, AmqpTrigger
from roost.triggers.amqp_consumers import connect_arguments
from tests.dag.case import a_dag, raw, run
from tests.support.rabbitmq import MISSING, RabbitServer
from tests.triggers.case import descriptors, waiting
from tests.triggers.watching import watching

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def running() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture
def server(running: RabbitServer, monkeypatch: pytest.MonkeyPatch) -> RabbitServer:
    monkeypatch.setenv("ROOST_CONN_MQ", f"amqp://guest:guest@127.0.0.1:{running.port}")
    return running


class Broker:
    """The broker, as someone else who uses it."""

    def __init__(self, channel: Any, name: str) -> None:
        self.channel = channel
        self.name = name

    async def counts(self) -> tuple[int, int]:
        """Messages that are ready, and consumers."""
        found = await self.channel.declare_queue(self.name, passive=True)
        return found.declaration_result.message_count, found.declaration_result.consumer_count

    async def send(self, body: str | bytes, **more: Any) -> None:
        content = body if isinstance(body, bytes) else body.encode()
        message = aio_pika.Message(content, delivery_mode=2, **more)
        await self.channel.default_exchange.publish(message, routing_key=self.name)

    async def until(self, ready: int | None = None, consumers: int | None = None) -> None:
        async with asyncio.timeout(30):
            while True:
                there, eating = await self.counts()
                if ready in (None, there) and consumers in (None, eating):
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def broker(server: RabbitServer, name: str) -> AsyncIterator[Broker]:
    connection = await aio_pika.connect(host="127.0.0.1", port=server.port)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)
        yield Broker(channel, name)
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):  # the broker was restarted
            await channel.queue_delete(name)


async def event_of(trigger: AmqpTrigger, *, stored: bool) -> Any:
    """What a trigger fires with, as the runner drives it."""
    events: Any = trigger.run()
    try:
        async with asyncio.timeout(30):
            event = await anext(events)
        if stored:
            await trigger.on_stored()
        return event.payload
    finally:
        await events.aclose()


def test_a_message_fires_and_is_acknowledged_when_its_event_is_stored(server: RabbitServer) -> None:
    async def main() -> None:
        async with broker(server, "jobs") as jobs:
            await jobs.send(
                b"caf\xc3\xa9 \xff\0", headers={"day": "today", "n": 3}, message_id="m1"
            )
            assert await event_of(AmqpTrigger("mq", "jobs"), stored=True) == {
                "queue": "jobs", "body": "café \\xff\\0", "headers": {"day": "today", "n": 3},
                "content_type": None, "message_id": "m1", "correlation_id": None,
                "routing_key": "jobs", "redelivered": False,
            }  # fmt: skip
            await jobs.until(ready=0, consumers=0)

    asyncio.run(main())


def test_a_message_whose_event_was_not_stored_goes_to_another(server: RabbitServer) -> None:
    """D14: a triggerer that died, a task that was cleared."""

    async def main() -> None:
        async with broker(server, "jobs") as jobs:
            await jobs.send("one")
            first = await event_of(AmqpTrigger("mq", "jobs"), stored=False)
            assert (first["body"], first["redelivered"]) == ("one", False)
            again = await event_of(AmqpTrigger("mq", "jobs"), stored=True)
            assert (again["body"], again["redelivered"]) == ("one", True)
            await jobs.until(ready=0, consumers=0)

    asyncio.run(main())


def test_each_trigger_takes_one_and_leaves_the_rest(server: RabbitServer) -> None:
    async def main() -> None:
        async with broker(server, "jobs") as jobs, broker(server, "other") as other:
            them = [AmqpTrigger("mq", "jobs") for _ in range(20)]
            events = [asyncio.create_task(event_of(one, stored=True)) for one in them]
            apart = asyncio.create_task(event_of(AmqpTrigger("mq", "other"), stored=True))
            await jobs.until(consumers=20)
            for number in range(25):
                await jobs.send(str(number))
            bodies = [int((await event)["body"]) for event in events]
            assert sorted(bodies) == list(range(20))
            await jobs.until(ready=5, consumers=0)
            assert not apart.done()
            await other.send("x")
            assert (await apart)["queue"] == "other"

    asyncio.run(main())


def test_cancelled_triggers_keep_nothing(server: RabbitServer) -> None:
    before = descriptors()

    async def main() -> None:
        async with broker(server, "jobs") as jobs:
            async with waiting(*[AmqpTrigger("mq", "jobs") for _ in range(20)]):
                await jobs.until(consumers=20)
            await jobs.until(consumers=0)
            await jobs.send("kept")
            await jobs.until(ready=1)

    asyncio.run(main())
    assert descriptors() == before


def test_a_broker_that_was_gone_is_found_again(server: RabbitServer) -> None:
    async def main() -> None:
        async with broker(server, "kept") as jobs:
            waits = asyncio.create_task(event_of(AmqpTrigger("mq", "kept"), stored=True))
            holds = AmqpTrigger("mq", "kept")
            held: Any = holds.run()
            await jobs.until(consumers=1)
            await jobs.send("one")
            assert (await waits)["body"] == "one"
            await jobs.send("two")
            assert (await anext(held)).payload["body"] == "two"
            waits = asyncio.create_task(event_of(AmqpTrigger("mq", "kept"), stored=True))
            await jobs.until(consumers=2)
            server.stop()
            server.start()  # in the main thread, with which it is to end
            # What was delivered and not acknowledged is there again.
            found = await waits
            assert (found["body"], found["redelivered"]) == ("two", True)
            with pytest.raises(Exception):  # noqa: B017 - whatever the client says
                await holds.on_stored()
            await held.aclose()

    asyncio.run(main())


def test_a_queue_that_was_deleted_is_waited_for_until_it_is_there_again(
    server: RabbitServer,
) -> None:
    """The broker cancels its consumers."""

    async def main() -> None:
        async with broker(server, "gone") as jobs:
            them = [AmqpTrigger("mq", "gone") for _ in range(3)]
            events = [asyncio.create_task(event_of(one, stored=True)) for one in them]
            await jobs.until(consumers=3)
            await jobs.channel.queue_delete("gone")
            await jobs.channel.declare_queue("gone", durable=True)
            await jobs.until(consumers=3)
            for number in range(4):
                await jobs.send(str(number))
            assert sorted([(await event)["body"] for event in events]) == ["0", "1", "2"]
            await jobs.until(ready=1, consumers=0)

    asyncio.run(main())


def test_a_waiting_trigger_weighs_little(server: RabbitServer) -> None:
    """What it allocates, itself and at the client library, is the same each time, whatever else
    the machine does; `make bench` measures what that is in a runner."""
    number = 200

    async def main() -> float:
        async with broker(server, "jobs") as jobs, waiting(AmqpTrigger("mq", "jobs")):
            await jobs.until(consumers=1)
            them = [AmqpTrigger("mq", "jobs") for _ in range(number)]
            gc.collect()
            tracemalloc.start()
            try:
                async with waiting(*them):
                    await jobs.until(consumers=number + 1)
                    gc.collect()
                    return tracemalloc.get_traced_memory()[0] / number
            finally:
                tracemalloc.stop()

    assert asyncio.run(main()) < 2_800


@pytest.mark.parametrize(
    ("uri", "queue", "said"),
    [
        ("amqp://guest:wrong@127.0.0.1:{port}", "jobs", "ACCESS_REFUSED"),
        ("amqp://127.0.0.1:{port}/nowhere", "jobs", "refuses the virtual host 'nowhere'"),
        ("amqp://127.0.0.1:{port}", "missing", "there is no queue 'missing'"),
        ("redis://127.0.0.1:{port}", "jobs", "needs one of the type amqp"),
    ],
)
def test_wrong_credentials_are_one_line_that_names_the_connection(
    server: RabbitServer, monkeypatch: pytest.MonkeyPatch, uri: str, queue: str, said: str
) -> None:
    monkeypatch.setenv("ROOST_CONN_MQ", uri.format(port=server.port))

    async def main() -> None:
        async with waiting(AmqpTrigger("mq", queue), AmqpTrigger("mq", queue)) as them:
            for one in them:
                with pytest.raises(RoostException, match=said) as caught:
                    await one.payload()
                text = str(caught.value)
                assert "'mq'" in text and "\n" not in text and "wrong" not in text

    asyncio.run(main())


def test_a_queue_that_is_missing_leaves_the_others_alone(server: RabbitServer) -> None:
    async def main() -> None:
        async with broker(server, "jobs") as jobs:
            waits = asyncio.create_task(event_of(AmqpTrigger("mq", "jobs"), stored=True))
            await jobs.until(consumers=1)
            with pytest.raises(RoostException, match="there is no queue"):
                await event_of(AmqpTrigger("mq", "missing"), stored=True)
            await jobs.send("fine")
            assert (await waits)["body"] == "fine"

    asyncio.run(main())


def test_amqp_sensor() -> None:
    sensor = AmqpSensor(task_id="s", queue_name="jobs-{{ ds }}", conn_id="mq", dag=a_dag())
    spec = run(sensor)[0].defer
    assert spec is not None
    assert spec.source == "roost.triggers.amqp:AmqpTrigger"
    assert bytes(spec.kwargs) == b'{"conn_id":"mq","queue":"jobs-2026-01-31"}'
    event = {"queue": "jobs", "body": "x"}
    resumed = run(sensor, next_method=spec.next_method, next_kwargs=raw({"event": event}))
    assert resumed[1] == {"return_value": event}


def test_arguments() -> None:
    with pytest.raises(RoostException, match="needs a conn_id"):
        AmqpTrigger("", "q")
    with pytest.raises(RoostException, match="needs a queue"):
        AmqpTrigger("mq", "")
    from roost.dag.connection import Connection

    given = connect_arguments(Connection("mq", uri="amqps://me:pw@host/%2Fprod"))
    assert (given["port"], given["ssl"], given["virtualhost"]) == (5671, True, "/prod")


def test_one_consumer_feeds_many_watchers_and_acknowledges_when_all_have_stored(
    server: RabbitServer,
) -> None:
    """D14: a real queue; what was not acknowledged is delivered again, under the same key."""
    every, named = AmqpEventTrigger("mq", "shared"), AmqpEventTrigger("mq", "shared", "shared")
    none = AmqpEventTrigger("mq", "shared", "elsewhere")

    async def main() -> None:
        async with broker(server, "shared") as shared:
            for number in range(3):
                await shared.send(str(number), message_id=f"m{number}")
            async with watching(every, named, none, stores=False) as ((one, two, three), _):
                await one.has(1)
                await two.has(1)
                await shared.until(ready=0)  # all are with us
                one.store()
                await one.has(2)
                two.store()
                assert [extra["body"] for extra in await two.has(2)] == ["0", "1"]
                assert three.told == [] and one.told[1].key == "m1"
            await shared.until(ready=2, consumers=0)  # the first was acknowledged
            async with watching(every) as ((again,), _):
                extras = await again.has(2)
                assert [(extra["body"], extra["redelivered"]) for extra in extras] == [
                    ("1", True),
                    ("2", True),
                ]
                await shared.send("3")
                assert (await again.has(3))[2]["body"] == "3"
            await shared.until(consumers=0)
            ready, _ = await shared.counts()
            assert ready <= 1  # the last may have been given back: it left in that moment

    asyncio.run(main())
