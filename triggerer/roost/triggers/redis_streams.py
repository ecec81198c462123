"""The client that the stream triggers of a runner share for one Redis or Valkey server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from roost.triggers.redis_client import arguments, is_passing, refusal, text_of
from roost.triggers.servers import Hub, Patience, client_library, start_task

if TYPE_CHECKING:
    from roost.triggers.redis import RedisStreamTrigger

__all__ = ["Streams"]

_CONNECTIONS = 4
_ASKING = 8  # enough to keep those busy
_LAST_ANSWERS_S = 5.0


class Streams(Hub):
    """Looks into streams for triggers, on a few connections."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self._client: Any = None
        self._redis: Any = None
        self._patience = Patience(conn_id)
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        #: Held while a trigger looks.
        self.asking = asyncio.Semaphore(_ASKING)
        self._sent: set[asyncio.Task[Any]] = set()
        self._groups: set[tuple[str, str]] = set()

    async def first(self, trigger: RedisStreamTrigger) -> dict[str, Any] | None:
        """The first entry for a trigger; None: there is none yet.

        Raises:
            RoostException: the server refuses us, or has not been reached for long.
        """
        if trigger.group is None:
            found = await self._do("XREAD", "COUNT", 1, "STREAMS", trigger.stream, trigger.last_id)
            return _entry(trigger.stream, _entries(found))
        return _entry(trigger.stream, await self._from_group(trigger, trigger.group))

    async def entries(
        self, trigger: RedisStreamTrigger, after: str, count: int = 100
    ) -> tuple[list[dict[str, Any]], str]:
        """The next entries of a trigger's group, and where the ones after them begin.

        Args:
            trigger: its consumer's.
            after: an id: what the consumer holds after it; ``>``: what nobody has been given.
            count: most of them.

        Raises:
            RoostException: as for :meth:`first`.
        """
        stream, group = trigger.stream, str(trigger.group)
        if not await self._have_group(trigger, group):
            return [], after
        read = ("XREADGROUP", "GROUP", group, trigger.consumer, "COUNT", count, "STREAMS", stream)
        answer = await self._do(*read, after)
        if answer is None and after != ">":
            return [], after  # the server was away
        if answer is None and (stream, group) not in self._groups:
            return [], "0-0"
        raw = _entries(answer)
        if not raw:
            return [], ">"
        made = [_entry(stream, [one]) for one in raw]
        for one, entry in zip(raw, made, strict=True):
            if entry is None:  # trimmed from the stream since
                await self.settle(trigger, text_of(one[0]) or "")
        last = ">" if after == ">" else text_of(raw[-1][0]) or ">"
        return [entry for entry in made if entry is not None], last

    async def settle(self, trigger: RedisStreamTrigger, entry_id: str) -> None:
        """An entry is done with; its consumer goes on."""
        while await self._do("XACK", trigger.stream, trigger.group, entry_id) is None:
            if (trigger.stream, trigger.group) not in self._groups:
                return  # somebody has deleted the group

    async def acknowledge(self, trigger: RedisStreamTrigger, entry_id: str) -> None:
        """An entry is done with, and the consumer of this trigger has no further use."""
        while await self._do("XACK", trigger.stream, trigger.group, entry_id) is None:
            pass  # the server was away
        if trigger.trigger_id is not None:
            await self._do("XGROUP", "DELCONSUMER", trigger.stream, trigger.group, trigger.consumer)

    async def close(self) -> None:
        if self._sent:
            await asyncio.wait(self._sent, timeout=_LAST_ANSWERS_S)
        if self._client is not None:
            await self._client.aclose()

    async def _have_group(self, trigger: RedisStreamTrigger, group: str) -> bool:
        """Make a group that is not known to be there; False: the server was away."""
        stream = trigger.stream
        if (stream, group) not in self._groups:
            make = ("XGROUP", "CREATE", stream, group, trigger.last_id, "MKSTREAM")
            if await self._do(*make, forgive="BUSYGROUP") is None:
                return False
            self._groups.add((stream, group))
        return True

    async def _from_group(self, trigger: RedisStreamTrigger, group: str) -> Any:
        stream = trigger.stream
        if not await self._have_group(trigger, group):
            return None
        read = ("XREADGROUP", "GROUP", group, trigger.consumer, "COUNT", 1, "STREAMS", stream)
        now = asyncio.get_running_loop().time()
        if trigger.may_hold:
            # Taken in an earlier life, or by a read whose answer was lost.
            held = _entries(await self._do(*read, "0"))
            if held and held[0][1] is None:  # trimmed from the stream since
                await self._do("XACK", stream, group, held[0][0])
                return None
            if held:
                return held
            trigger.may_hold = False
        if now >= trigger.claim_at:
            trigger.claim_at = now + trigger.claim_after / 5
            idle = int(trigger.claim_after * 1000)
            claim = ("XAUTOCLAIM", stream, group, trigger.consumer, idle, "0", "COUNT", 1)
            claimed = await self._do(*claim)
            if claimed and claimed[1]:
                return claimed[1]
        trigger.may_hold = True  # until the answer is here
        return _entries(await self._do(*read, ">", gone=trigger))

    async def _do(
        self, *command: Any, forgive: str = "", gone: RedisStreamTrigger | None = None
    ) -> Any:
        """The answer to one command; None after a pause when the server could not be reached.

        Args:
            command: its words.
            forgive: an error with this word is as good as an answer.
            gone: which trigger may hold an entry, should the answer be lost.
        """
        try:
            client = await self._open()
            # Before there is a task: of thousands that wait for their turn, those would weigh most.
            await self._turns.acquire()
            # A trigger that is cancelled leaves its command alone: the client, interrupted while it
            # connects, would lose the connection out of sight.
            task = start_task(client.execute_command(*command), f"asking-{self.key}")
            self._sent.add(task)
            task.add_done_callback(self._done)
            found = await asyncio.shield(task)
        except Exception as error:
            if self._redis is None or not isinstance(error, self._redis.RedisError | OSError):
                raise
            if forgive and forgive in str(error):
                return b"OK"
            if "NOGROUP" in str(error):  # somebody has deleted the stream or the group
                self._groups.clear()
                return None
            if not is_passing(self._redis, error):
                raise refusal(self.key, error) from None
            await self._patience.wait(error)
            return None
        self._patience.reached()
        if gone is not None:
            gone.may_hold = False
        return found

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._turns.release()
        self._sent.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though who asked may have gone

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._redis = await client_library("redis", "redis")
                library = await client_library("redis.asyncio", "redis")
                given = arguments(await self.connection(self.key))
                pool = library.ConnectionPool(**_pool_arguments(library, given))
                # Raw answers, of the old protocol: of the same shape with every version.
                self._client = library.Redis.from_pool(pool)
                self._client.response_callbacks.clear()
            return self._client


def _pool_arguments(library: Any, given: dict[str, Any]) -> dict[str, Any]:
    given = dict(given)
    if given.pop("ssl"):
        given["connection_class"] = library.SSLConnection
    return given


def _entries(found: Any) -> list[Any]:
    """Of the one stream that was read."""
    return found[0][1] if found else []


def _entry(stream: str, entries: Any) -> dict[str, Any] | None:
    for entry in entries or ():
        if entry is None or entry[1] is None:
            continue  # trimmed from the stream since it was taken
        names = [text_of(part) or "" for part in entry[1]]
        fields = dict(zip(names[::2], names[1::2], strict=True))
        return {"stream": stream, "id": text_of(entry[0]), "fields": fields}
    return None
