"""Triggers that wait for something in Redis or Valkey (poll lane)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException
from roost.support.clock import now_us
from roost.triggers.pooled import PooledTrigger

__all__ = ["RedisKeyTrigger", "RedisStreamTrigger"]

_ID = re.compile(r"\d+(-\d+)?")


class RedisKeyTrigger(PooledTrigger):
    """Fires when a key exists, with ``{"key": …, "value": …}`` as payload.

    All triggers of one connection ask together, in one round trip. A list that is empty does not
    exist, so this waits for an element as well; it takes nothing.

    Args:
        conn_id: the connection, of the type ``redis`` or ``valkey``.
        key: which key.
        value: wait until it is a string of this value; None: until it exists, whatever it is.
        poke_interval: seconds between two looks.

    Raises:
        RoostException: an argument is wrong.
    """

    poll_retries = 20

    def __init__(
        self, conn_id: str, key: str, value: str | None = None, poke_interval: float = 1.0
    ) -> None:
        for name, given in (("conn_id", conn_id), ("key", key)):
            if not isinstance(given, str) or not given:
                raise RoostException(f"RedisKeyTrigger needs a {name}, not {given!r}")
        if value is not None and not isinstance(value, str):
            raise RoostException(f"value must be a text, not {value!r}")
        if poke_interval <= 0:
            raise RoostException(f"poke_interval must be more than 0 s, not {poke_interval!r}")
        self.conn_id = conn_id
        self.key = key
        self.value = value
        self.poll_interval = float(poke_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.RedisKeyTrigger",
            {
                "conn_id": self.conn_id,
                "key": self.key,
                "value": self.value,
                "poke_interval": self.poll_interval,
            },
        )

    def poll_group(self) -> str:
        """Its server."""
        return self.conn_id

    def poll_key(self) -> str:
        """What is asked of it."""
        return f"={len(self.key)}:{self.key}{self.value}" if self.value is not None else self.key

    @classmethod
    async def poll_many(
        cls, triggers: Mapping[str, Self]
    ) -> Mapping[str, TriggerEvent | BaseException]:
        """One pipeline for all of them."""
        from roost.triggers.redis_client import arguments, is_passing, refusal
        from roost.triggers.servers import client_library

        first = next(iter(triggers.values()))
        redis = await client_library("redis", "redis")
        given = arguments(await first.get_connection(first.conn_id))
        asyncio_redis = await client_library("redis.asyncio", "redis")
        client: Any = asyncio_redis.Redis(**given, single_connection_client=True)
        try:
            pipeline = client.pipeline(transaction=False)
            for one in triggers.values():
                pipeline.exists(one.key) if one.value is None else pipeline.get(one.key)
            answers = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            if is_passing(redis, error):
                raise
            raise refusal(first.conn_id, error) from None
        finally:
            await client.aclose()
        found: dict[str, TriggerEvent | BaseException] = {}
        for (key, one), answer in zip(triggers.items(), answers, strict=True):
            if isinstance(answer, Exception):
                found[key] = refusal(first.conn_id, answer)
            elif answer if one.value is None else answer == one.value.encode():
                found[key] = TriggerEvent({"key": one.key, "value": one.value})
        return found

    def __repr__(self) -> str:
        return f"<RedisKeyTrigger {self.key} on {self.conn_id}>"


class RedisStreamTrigger(BaseTrigger):
    """Fires with one entry of a stream: ``{"stream": …, "id": …, "fields": {…}}``.

    Without a group it sees the first entry after ``last_id``, and takes nothing. In a consumer
    group each entry goes to one trigger of the group: it is acknowledged when the event is in
    Roost's database. What was not, since its triggerer died or its task was cleared, stays with its
    consumer, whose name holds the trigger's id: the same trigger takes it again wherever it goes
    on, any other after ``claim_after``. So each entry is taken at least once.

    Args:
        conn_id: the connection, of the type ``redis`` or ``valkey``.
        stream: its key; need not exist yet.
        group: the consumer group; one that does not exist is made, and begins at ``last_id``.
        last_id: entries after this id only; default: after the moment when this is made, by this
            host's clock.
        poke_interval: seconds between two looks.
        claim_after: seconds after which an entry that another consumer has taken and not
            acknowledged is taken from it.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self,
        conn_id: str,
        stream: str,
        group: str | None = None,
        last_id: str | None = None,
        poke_interval: float = 1.0,
        claim_after: float = 300.0,
    ) -> None:
        for name, given in (("conn_id", conn_id), ("stream", stream)):
            if not isinstance(given, str) or not given:
                raise RoostException(f"RedisStreamTrigger needs a {name}, not {given!r}")
        if group is not None and (not isinstance(group, str) or not group):
            raise RoostException(f"group must be a text, not {group!r}")
        if last_id is not None and not (isinstance(last_id, str) and _ID.fullmatch(last_id)):
            raise RoostException(f"last_id must be an id such as 1700000000000-0, not {last_id!r}")
        if poke_interval <= 0 or claim_after <= 0:
            raise RoostException("poke_interval and claim_after must be more than 0 s")
        self.conn_id = conn_id
        self.stream = stream
        self.group = group
        self.last_id = last_id or f"{now_us() // 1000}-0"
        self.poke_interval = float(poke_interval)
        self.claim_after = float(claim_after)
        # What redis_streams keeps of its looks: whether it may hold an entry that we do not know
        # of, and when to look for those of others.
        self.may_hold = True
        self.claim_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.RedisStreamTrigger",
            {
                "conn_id": self.conn_id,
                "stream": self.stream,
                "group": self.group,
                "last_id": self.last_id,
                "poke_interval": self.poke_interval,
                "claim_after": self.claim_after,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every ``poke_interval`` seconds, on a client that the triggers of a server share."""
        import asyncio  # late: sensors make this trigger in processes that never run it

        from roost.triggers.redis_streams import Streams
        from roost.triggers.servers import join, leave

        hub = join(Streams, self.conn_id)
        try:
            while True:
                # Here, not behind three calls: of thousands that begin at once, what they hold
                # while they wait for their turn is not given back afterwards.
                async with hub.asking:
                    entry = await hub.first(self)
                if entry is not None:
                    break
                await asyncio.sleep(self.poke_interval)
            self._taken = entry["id"]
            yield TriggerEvent(entry)
        finally:
            await leave(hub)

    async def on_stored(self) -> None:
        """The entry is this task's for good."""
        if self.group is None:
            return
        from roost.triggers.redis_streams import Streams
        from roost.triggers.servers import join, leave

        hub = join(Streams, self.conn_id)
        try:
            await hub.acknowledge(self, self._taken)
        finally:
            await leave(hub)

    @property
    def consumer(self) -> str:
        """The name that it has in its group."""
        return "roost" if self.trigger_id is None else f"roost-{self.trigger_id}"

    def __repr__(self) -> str:
        of = "" if self.group is None else f" for group {self.group}"
        return f"<RedisStreamTrigger {self.stream}{of} on {self.conn_id}>"
