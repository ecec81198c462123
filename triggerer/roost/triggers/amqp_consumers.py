"""The connection to an AMQP broker on which a runner's triggers consume."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

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

__all__ = ["Consumers", "Taken", "described"]

log = logging.getLogger(__name__)

_KINDS = ("amqp", "amqps", "rabbitmq")
_TIMEOUT_S = 10.0
# Of however many triggers come at once: what all hold while they ask is not given back afterwards.
_ASKING = 8


class _Away(Exception):
    """The broker, or the channel to it, is gone for now."""


class _Line:
    """A channel to one queue. Each consumer on it is sent one message that is not acknowledged."""

    def __init__(self, channel: Any, queue: Any) -> None:
        self.channel = channel
        self.queue = queue
        self.waiting: set[asyncio.Future[Any]] = set()
        channel.close_callbacks.add(self._closed)

    def _closed(self, _channel: Any, reason: BaseException | None) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_exception(_Away(one_line(reason) if reason else "the channel is closed"))


class Taken(NamedTuple):
    """A message that was delivered and not acknowledged yet, and the consumer that has it."""

    line: Any
    tag: str
    message: Any

    async def acknowledge(self) -> None:
        """The broker may forget it; first the consumer, or it would be sent the next one."""
        await self.line.queue.cancel(self.tag)
        await self.message.ack()

    async def give_back(self) -> None:
        """The broker gives it to another consumer."""
        with suppress(Exception):  # a connection that is gone has given it back already
            await self.line.queue.cancel(self.tag)
            await self.message.reject(requeue=True)


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

    async def take(self, queue: str) -> Taken:
        """The next message of a queue.

        Raises:
            RoostException: the broker refuses us, there is no such queue, or the broker has not
                been reached for long.
        """
        while True:
            try:
                return await self._take(queue)
            except _Away as error:
                await self._patience.wait(error)

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()

    async def _take(self, queue: str) -> Taken:
        line = await self._line(queue)
        got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        line.waiting.add(got)
        tag = None
        try:
            async with self._turns:
                tag = await self._mended(line.queue.consume(partial(_deliver, got)), queue)
            self._patience.reached()
            return Taken(line, tag, await got)
        except BaseException:
            await self._give_up(line, tag, got)
            raise
        finally:
            line.waiting.discard(got)

    async def _give_up(self, line: _Line, tag: str | None, got: asyncio.Future[Any]) -> None:
        """Nobody waits any more: no message may be kept."""
        if tag is not None:
            with suppress(Exception):
                await line.queue.cancel(tag)
        if got.done() and not got.cancelled() and got.exception() is None:
            with suppress(Exception):
                await got.result().reject(requeue=True)
        elif got.done() and not got.cancelled():
            got.exception()  # it is told already
        got.cancel()

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
            found = await self._mended(channel.declare_queue(queue, passive=True), queue)
            line = self._lines[queue] = _Line(channel, found)
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

    async def _mended(self, what: Any, queue: str, host: str = "") -> Any:
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


async def _deliver(got: asyncio.Future[Any], message: Any) -> None:
    if got.done():
        with suppress(Exception):
            await message.reject(requeue=True)
    else:
        got.set_result(message)


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
    return {
        "queue": queue,
        "body": _text(message.body),
        "headers": {str(name): _plain(value) for name, value in (message.headers or {}).items()},
        "content_type": message.content_type,
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "routing_key": message.routing_key,
        "redelivered": bool(message.redelivered),
    }


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _text(bytes(value)) if isinstance(value, bytes | bytearray) else str(value)
