"""PgNotifyTrigger: waits for a NOTIFY of PostgreSQL (poll lane)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

__all__ = ["PgNotifyTrigger"]

_LONGEST_CHANNEL = 63


class PgNotifyTrigger(BaseTrigger):
    """Fires on a NOTIFY, with ``{"channel": …, "payload": text}`` as payload.

    All triggers of a runner on one connection id share one connection to the server; it is made
    again when it breaks. PostgreSQL keeps no NOTIFY for who does not listen at that moment: give
    ``check_sql`` where one might be sent before this trigger waits or while it is connecting.

    Args:
        conn_id: the connection, of the type ``postgres``.
        channel: its name, in the spelling that NOTIFY has without quotes: lower case.
        payload: only notifications of this payload; a dict: whose payload is a JSON object with
            at least these items. None: every one.
        check_sql: a query that is asked each time the connection has begun to listen, and every
            ``check_interval``; when the first cell of its first row is there and neither 0, false,
            empty nor NULL, the trigger fires with ``{"channel": …, "payload": None, "found":
            cell}``.
        check_interval: seconds between two of these looks.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self,
        conn_id: str,
        channel: str,
        payload: str | Mapping[str, Any] | None = None,
        check_sql: str | None = None,
        check_interval: float = 300.0,
    ) -> None:
        if not isinstance(conn_id, str) or not conn_id:
            raise RoostException(f"PgNotifyTrigger needs a conn_id, not {conn_id!r}")
        size = len(channel.encode()) if isinstance(channel, str) else 0
        if not 0 < size <= _LONGEST_CHANNEL or "\0" in channel:
            raise RoostException(
                f"PgNotifyTrigger needs a channel of 1 to {_LONGEST_CHANNEL} bytes, not {channel!r}"
            )
        if payload is not None and not isinstance(payload, str | Mapping):
            raise RoostException(f"payload must be a text or a dict, not {payload!r}")
        if check_interval <= 0:
            raise RoostException(f"check_interval must be more than 0 s, not {check_interval!r}")
        self.conn_id = conn_id
        self.channel = channel
        self.payload = dict(payload) if isinstance(payload, Mapping) else payload
        self.check_sql = check_sql
        self.check_interval = float(check_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return (
            "roost.triggers.PgNotifyTrigger",
            {
                "conn_id": self.conn_id,
                "channel": self.channel,
                "payload": self.payload,
                "check_sql": self.check_sql,
                "check_interval": self.check_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Listen; look by the query, too, where there is one."""
        import asyncio  # late: sensors make this trigger in processes that never run it

        from roost.triggers.pg_listening import Listening
        from roost.triggers.servers import join, leave

        hub = join(Listening, self.conn_id)
        ear = hub.lend(self.channel)
        try:
            now = asyncio.get_running_loop().time
            look_at = now() + self.check_interval
            while True:
                patience = None if self.check_sql is None else look_at - now()
                heard, anew = await ear.wait(patience)
                for payload in heard:
                    if self.matches(payload):
                        yield TriggerEvent({"channel": self.channel, "payload": payload})
                        return
                if self.check_sql is None or not (anew or now() >= look_at):
                    continue
                found = await hub.ask(self.check_sql)
                if found not in (None, 0, "0", ""):
                    told = {"channel": self.channel, "payload": None, "found": found}
                    yield TriggerEvent(told)
                    return
                look_at = now() + self.check_interval
        finally:
            hub.take_back(self.channel, ear)
            await leave(hub)

    def matches(self, payload: str) -> bool:
        """Whether this is what it waits for."""
        if not isinstance(self.payload, dict):
            return self.payload in (None, payload)
        try:
            given = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        return isinstance(given, dict) and all(
            name in given and given[name] == value for name, value in self.payload.items()
        )

    def __repr__(self) -> str:
        return f"<PgNotifyTrigger {self.channel} on {self.conn_id}>"
