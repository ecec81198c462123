"""Event triggers of watchers, on top of the triggers that tasks wait for (D13, D14)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from roost.dag.event_trigger import BaseEventTrigger, StreamItem
from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException
from roost.triggers.amqp import AmqpTrigger
from roost.triggers.file import FileDeleteTrigger
from roost.triggers.postgres import PgNotifyTrigger
from roost.triggers.redis import RedisStreamTrigger

__all__ = [
    "AmqpEventTrigger",
    "FileEventTrigger",
    "PgNotifyEventTrigger",
    "RedisStreamEventTrigger",
]

_MOST_KEY = 200


class FileEventTrigger(BaseEventTrigger, FileDeleteTrigger):
    """An event whenever every one of ``paths`` exists: ``{"paths": [the files, sorted]}``.

    The files are deleted when the event is stored; folders must not be matched. A triggerer that
    dies in between sees the same files again, whose event is there already: it only deletes them.

    Args:
        paths: a path or glob (``**`` crosses folders), or several; each must match something.
        poke_interval: seconds between two looks.
        min_size: bytes that a file must have to count.
        settled_for: seconds for which a file must not have changed to count.
        recursive: False: ``**`` means the same as ``*``.

    Raises:
        RoostException: an argument is wrong.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for the next files when the last ones are gone."""
        while True:
            async with aclosing(FileDeleteTrigger.run(self)) as found:  # type: ignore[type-var]
                async for event in found:
                    yield TriggerEvent({"paths": event.payload}, key=_fingerprint(event.payload))


class AmqpEventTrigger(BaseEventTrigger, AmqpTrigger):
    """An event for each message of a queue, with the payload of AmqpTrigger.

    A message is acknowledged when the events of all watchers that share the queue on a triggerer
    are stored; what none of them asks for is so, too. Several triggerers share the messages out, so
    that watchers which ask for different ones belong on one: give them a ``queue`` of their own.
    A ``message_id`` is the event's key: a message that is delivered again is one event.

    Args:
        conn_id: the connection, of the type ``amqp`` or ``amqps``; its schema is the virtual host.
        queue: which queue; it must exist.
        routing_key: only messages that were sent with it.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(self, conn_id: str, queue: str, routing_key: str | None = None) -> None:
        super().__init__(conn_id, queue)
        if routing_key is not None and not isinstance(routing_key, str):
            raise RoostException(f"routing_key must be a text, not {routing_key!r}")
        self.routing_key = routing_key

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.AmqpEventTrigger",
            {"conn_id": self.conn_id, "queue": self.queue, "routing_key": self.routing_key},
        )

    # The stream acknowledges, for all that it feeds.
    on_stored = BaseTrigger.on_stored

    def shared_stream_key(self) -> tuple[str, str]:
        """One consumer for a queue."""
        return (self.conn_id, self.queue)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[StreamItem]:
        """All messages of the queue."""
        from roost.triggers.amqp_consumers import Consumers, described
        from roost.triggers.servers import join, leave

        hub = join(Consumers, kwargs["conn_id"])
        try:
            while True:
                taken = await hub.take(kwargs["queue"])
                message = described(kwargs["queue"], taken.message)
                yield StreamItem(message, taken.acknowledge, taken.give_back)
        finally:
            await leave(hub)

    @classmethod
    async def filter_shared_stream(
        cls, stream: AsyncIterator[Any], kwargs: dict[str, Any]
    ) -> AsyncIterator[TriggerEvent]:
        """Those with the routing key."""
        wanted = kwargs.get("routing_key")
        async for message in stream:
            if wanted in (None, message["routing_key"]):
                yield TriggerEvent(message, key=_key(message["message_id"]))

    def __repr__(self) -> str:
        return f"<AmqpEventTrigger {self.queue} on {self.conn_id}>"


class RedisStreamEventTrigger(BaseEventTrigger, RedisStreamTrigger):
    """An event for each entry of a stream, by a consumer group, with RedisStreamTrigger's payload.

    An entry is acknowledged when the events of all watchers that share the group on a triggerer are
    stored; what was not comes again, and is one event all the same, for its id is the key.
    Several triggerers share the entries out: watchers which ask for different ones have a group
    each, or a ``queue`` that one triggerer takes.

    Args:
        conn_id: the connection, of the type ``redis`` or ``valkey``.
        stream: its key; need not exist yet.
        group: the consumer group; one that does not exist is made, and begins at ``last_id``.
        fields: only entries that have these values in these fields.
        last_id: entries after this id only; default: all.
        poke_interval: seconds between two looks.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self,
        conn_id: str,
        stream: str,
        group: str,
        fields: Mapping[str, str] | None = None,
        last_id: str = "0-0",
        poke_interval: float = 1.0,
    ) -> None:
        super().__init__(conn_id, stream, group, last_id, poke_interval)
        if not group:
            raise RoostException("RedisStreamEventTrigger needs a group")
        if fields is not None and not isinstance(fields, Mapping):
            raise RoostException(f"fields must be a dict, not {fields!r}")
        self.fields = dict(fields or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.RedisStreamEventTrigger",
            {
                "conn_id": self.conn_id,
                "stream": self.stream,
                "group": self.group,
                "fields": self.fields,
                "last_id": self.last_id,
                "poke_interval": self.poke_interval,
            },
        )

    # The stream acknowledges, for all that it feeds.
    on_stored = BaseTrigger.on_stored

    def shared_stream_key(self) -> tuple[str, str, str | None]:
        """One consumer for a group."""
        return (self.conn_id, self.stream, self.group)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[StreamItem]:
        """What the group's consumer holds, then what is new, and what was given back."""
        import asyncio  # late: DAG files make this trigger in processes that never run it

        from roost.triggers.redis_streams import Streams
        from roost.triggers.servers import join, leave

        trigger = cls(**kwargs)
        hub = join(Streams, trigger.conn_id)
        back: list[dict[str, Any]] = []

        async def give_back(entry: dict[str, Any]) -> None:
            back.append(entry)

        try:
            after = "0-0"
            while True:
                found, after = await hub.entries(trigger, after)
                found, back[:] = [*back, *found], []
                for entry in found:
                    ack = partial(hub.settle, trigger, entry["id"])
                    yield StreamItem(entry, ack, partial(give_back, entry))
                if not found:
                    await asyncio.sleep(trigger.poke_interval)
        finally:
            await leave(hub)

    @classmethod
    async def filter_shared_stream(
        cls, stream: AsyncIterator[Any], kwargs: dict[str, Any]
    ) -> AsyncIterator[TriggerEvent]:
        """Those with the fields."""
        wanted = (kwargs.get("fields") or {}).items()
        async for entry in stream:
            if all(entry["fields"].get(name) == value for name, value in wanted):
                yield TriggerEvent(entry, key=entry["id"])

    def __repr__(self) -> str:
        return f"<RedisStreamEventTrigger {self.stream} for group {self.group} on {self.conn_id}>"


class PgNotifyEventTrigger(BaseEventTrigger, PgNotifyTrigger):
    """An event for each NOTIFY on a channel: ``{"channel": …, "payload": …}``.

    PostgreSQL keeps nothing for who does not listen: what is sent during a hand-over or while
    the server is away is lost. All on one connection id share a connection of the runner.

    Args:
        conn_id: the connection, of the type ``postgres``.
        channel: the channel.
        payload: only notifications with this payload; a dict: whose payload is a JSON object with
            these values.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self, conn_id: str, channel: str, payload: str | Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(conn_id, channel, payload)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.PgNotifyEventTrigger",
            {"conn_id": self.conn_id, "channel": self.channel, "payload": self.payload},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Listen."""
        from roost.triggers.pg_listening import Listening
        from roost.triggers.servers import join, leave

        hub = join(Listening, self.conn_id)
        ear = hub.lend(self.channel)
        try:
            while True:
                heard, _anew = await ear.wait(None)
                for payload in heard:
                    if self.matches(payload):
                        yield TriggerEvent({"channel": self.channel, "payload": payload})
        finally:
            hub.take_back(self.channel, ear)
            await leave(hub)

    def __repr__(self) -> str:
        return f"<PgNotifyEventTrigger {self.channel} on {self.conn_id}>"


def _key(text: object) -> str | None:
    fits = isinstance(text, str) and 0 < len(text) <= _MOST_KEY and "\0" not in text
    return str(text) if fits else None


def _fingerprint(paths: Sequence[str]) -> str:
    """Of these files as they are now."""
    told = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:  # gone since
            told.append(path)
        else:
            told.append(f"{path}\0{stat.st_dev}\0{stat.st_ino}\0{stat.st_ctime_ns}\0{stat.st_size}")
    return hashlib.sha256("\0\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()
