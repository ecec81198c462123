"""The connection to an AMQP broker on which a runner's triggers consume."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.triggers.servers import (
    Hub,
    Patience,
    cancel_task,
    client_library,
    one_line,
    start_task,
)

__all__ = ["Consumer", "Consumers", "described"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_KINDS = ("amqp", "amqps", "rabbitmq")
_TIMEOUT_S = 10.0
# Of however many triggers come at once: what all hold while they ask is not given back afterwards.
_ASKING = 8


class _Away(Exception):
    """The broker, the channel to it or what consumed there is gone for now."""


class Consumer:
    """One consumer of a queue, to be sent one message. Small: there are thousands.

    It talks to aiormq's channel: aio_pika's queue wraps the callback of each consumer, which would
    be a tenth of what a waiting trigger weighs.
    """

    __slots__ = ("got", "line", "tag")

    def __init__(self, line: _Line, tag: str) -> None:
        self.line = line
        self.tag = tag
        self.got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def message(self) -> Any:
        """What it was sent, once it was."""
        return self.got.result()

    async def acknowledge(self) -> None:
        """The broker may forget it; first the consumer, or it would be sent the next one."""
        await self.line.raw.basic_cancel(self.tag)
        await self.line.raw.basic_ack(self.message.delivery_tag)

    async def give_back(self) -> None:
        """Nobody waits any more: the broker gives what it has to another consumer."""
        self.line.consumers.pop(self.tag, None)
        with suppress(Exception):  # a connection that is gone has given it back already
            empty = self.got.cancel() or self.got.cancelled()
            message = None if empty else self.message
            await self.line.raw.basic_cancel(self.tag)
            if message is not None:
                await self.line.reject(message)


class _Line:
    """A channel to one queue. Each consumer on it is sent one message that is not acknowledged.

    Args:
        channel: it.
        raw: the same, as aiormq has it.
        queue: its name.
    """

    def __init__(self, channel: Any, raw: Any, queue: str) -> None:
        self.channel = channel
        self.raw = raw
        self.queue = queue
        self.consumers: dict[str, Consumer] = {}  # that wait, by their tags
        self._tags = map(str, count())
        self._deliver = self._delivered  # one for all: each bound method weighs 64 bytes
        channel.close_callbacks.add(self._closed)
        raw.on_consumer_cancel_callbacks.add(self._dismissed)

    async def consume(self) -> Consumer:
        """One more consumer."""
        tag = next(self._tags)
        # Before it is asked for: its message may be here before we know that the broker agrees.
        consumer = self.consumers[tag] = Consumer(self, tag)
        try:
            await self.raw.basic_consume(self.queue, self._deliver, consumer_tag=tag)
        except BaseException:
            await consumer.give_back()
            raise
        return consumer

    async def reject(self, message: Any) -> None:
        """Another consumer shall have it."""
        await self.raw.basic_reject(message.delivery_tag, requeue=True)

    async def _delivered(self, message: Any) -> None:
        consumer = self.consumers.pop(message.delivery.consumer_tag, None)
        if consumer is not None and not consumer.got.done():
            consumer.got.set_result(message)
            return
        with suppress(Exception):
            await self.reject(message)

    def _dismissed(self, cancel: Any) -> None:
        """The broker has ended a consumer, because its queue was deleted for instance."""
        self._lost(cancel.consumer_tag, "the broker has cancelled the consumer")

    def _closed(self, _channel: Any, reason: BaseException | None) -> None:
        for tag in list(self.consumers):
            self._lost(tag, one_line(reason) if reason else "the channel is closed")

    def _lost(self, tag: str, why: str) -> None:
        consumer = self.consumers.pop(tag, None)
        if consumer is not None and not consumer.got.done():
            consumer.got.set_exception(_Away(why))


class Consumers(Hub):
    """One connection to a broker, with one channel for each queue that is waited at."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self._library: Any = None
        self._connection: Any = None
        self._lines: dict[str, _Line] = {}
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(_ASKING)
        self._patience = Patience(conn_id)

    async def take(self, queue: str) -> Consumer:
        """A consumer that has the next message of a queue.

        Raises:
            RoostException: the broker refuses us, there is no such queue, or the broker has not
                been reached for long.
        """
        # All in one coroutine: the frame of another would be kept as long as it waits.
        while True:
            consumer = None
            try:
                async with self._turns:
                    line = await self._line(queue)
                    consumer = await self._mended(line.consume(), queue)
                self._patience.reached()
                await consumer.got
                return consumer
            except _Away as error:
                await self._patience.wait(error)
            except BaseException:
                if consumer is not None:
                    await consumer.give_back()
                raise

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()

    async def _line(self, queue: str) -> _Line:
        async with self._opening:
            line = self._lines.get(queue)
            if line is not None and not line.channel.is_closed:
                return line
            if self._connection is None:
                await self._connect()
            channel = await self._mended(self._connection.channel(publisher_confirms=False), queue)
            await self._mended(channel.set_qos(prefetch_count=1), queue)
            # Passive: a queue belongs to who made it; we would make it with other properties.
            await self._mended(channel.declare_queue(queue, passive=True), queue)
            raw = await channel.get_underlay_channel()
            line = self._lines[queue] = _Line(channel, raw, queue)
            return line

    async def _connect(self) -> None:
        self._library = await client_library("aio_pika", "amqp")
        arguments = connect_arguments(await self.connection(self.key))
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def connect() -> None:
            # In a task that is no trigger's: what reads from the connection is started in it.
            try:
                made.set_result(await self._library.connect(timeout=_TIMEOUT_S, **arguments))
            except Exception as error:
                made.set_exception(error)

        task = start_task(connect(), f"connecting-{self.key}")
        try:
            self._connection = await self._mended(made, "", arguments["virtualhost"])
            self._connection.close_callbacks.add(self._lost)
        finally:
            cancel_task(task)

    def _lost(self, connection: Any, _reason: BaseException | None) -> None:
        if connection is self._connection:
            self._connection = None

    async def _mended(self, what: Awaitable[T], queue: str, host: str = "") -> T:
        """The result of a call; its errors as what they mean to who waits.

        Raises:
            _Away: the broker is not there.
            RoostException: it said no.
        """
        errors = self._library.exceptions
        try:
            return await what
        except errors.ChannelNotFoundEntity as error:
            if queue in self._lines:  # it was there: a broker that is starting recovers it
                raise _Away(one_line(error)) from None
            raise RoostException(f"connection {self.key!r}: there is no queue {queue!r}") from None
        except (errors.AuthenticationError, errors.ProbableAuthenticationError) as error:
            raise RoostException(f"connection {self.key!r}: {one_line(error)}") from None
        except errors.InvalidFrameError:
            # The broker closed the connection instead of opening it; aiormq keeps the reason.
            raise RoostException(
                f"connection {self.key!r}: the broker refuses the virtual host {host!r}"
            ) from None
        except (errors.ChannelInvalidStateError, OSError, TimeoutError, RuntimeError) as error:
            raise _Away(one_line(error)) from None
        except errors.AMQPError as error:
            if self._connection is None:
                raise _Away(one_line(error)) from None
            raise RoostException(f"connection {self.key!r}: {one_line(error)}") from None


def connect_arguments(connection: Connection) -> dict[str, Any]:
    """What the client is given.

    Raises:
        RoostException: it is no connection to such a broker.
    """
    kind = connection.conn_type.lower()
    if kind not in _KINDS:
        raise RoostException(
            f"connection {connection.conn_id!r} is of the type {connection.conn_type!r}; "
            "this needs one of the type amqp or amqps"
        )
    secure = kind == "amqps" or connection.extra_dejson.get("ssl") in (True, "true")
    return {
        "host": connection.host or "localhost",
        "port": connection.port or (5671 if secure else 5672),
        "login": connection.login or "guest",
        "password": connection.password or "guest",
        "virtualhost": connection.schema or "/",
        "ssl": secure,
        "client_properties": {"connection_name": "roost triggerer"},
    }


def described(queue: str, message: Any) -> dict[str, Any]:
    """A message as the payload of an event."""
    told = message.header.properties
    return {
        "queue": queue,
        "body": _text(message.body),
        "headers": {str(name): _plain(value) for name, value in (told.headers or {}).items()},
        "content_type": told.content_type,
        "message_id": told.message_id,
        "correlation_id": told.correlation_id,
        "routing_key": message.routing_key,
        "redelivered": bool(message.redelivered),
    }


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _text(bytes(value)) if isinstance(value, bytes | bytearray) else str(value)
