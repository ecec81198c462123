"""PgNotifySensor: wait for a NOTIFY of PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roost.sensors.event import EventSensor
from roost.triggers.postgres import PgNotifyTrigger

__all__ = ["PgNotifySensor"]


class PgNotifySensor(EventSensor):
    """Wait for a NOTIFY; the task's result is ``{"channel": …, "payload": text}``.

    PostgreSQL keeps no NOTIFY for who does not listen at that moment: give ``check_sql`` where one
    might be sent before the task waits, or while the triggerer is connecting anew.

    Args:
        channel: which channel, templated, in the spelling that NOTIFY has without quotes: lower
            case.
        conn_id: the connection, of the type ``postgres``.
        payload: only notifications of this payload, templated; a dict: whose payload is a JSON
            object with at least these items.
        check_sql: a query, templated, that is asked when the server has begun to notify us, and
            again now and then: it ends the wait when the first cell of its first row is there and
            neither 0, false, empty nor NULL. The result then holds that cell as ``found``.
        check_interval: seconds between two such looks.
        **kwargs: see BaseSensorOperator; those about looking (``poke_interval``, ``mode``, …) have
            no effect.
    """

    template_fields = ("channel", "payload", "check_sql")
    template_ext = (".sql",)

    def __init__(
        self,
        *,
        channel: str,
        conn_id: str = "postgres_default",
        payload: str | Mapping[str, Any] | None = None,
        check_sql: str | None = None,
        check_interval: float = 300.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channel = channel
        self.conn_id = conn_id
        self.payload = payload
        self.check_sql = check_sql
        self.check_interval = check_interval

    def make_trigger(self, context: dict[str, Any]) -> PgNotifyTrigger:
        """Listens on the channel."""
        return PgNotifyTrigger(
            self.conn_id, self.channel, self.payload, self.check_sql, self.check_interval
        )
