"""AmqpTrigger: waits for a message in a queue of an AMQP broker such as RabbitMQ (poll lane)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

if TYPE_CHECKING:
    from roost.triggers.amqp_consumers import Consumer

__all__ = ["AmqpTrigger"]


class AmqpTrigger(BaseTrigger):
    """Takes one message of a queue and fires with it.

    The payload is ``{"queue", "body", "headers", "content_type", "message_id", "correlation_id",
    "routing_key", "redelivered"}``, the body as text.

    Each waiting trigger is one consumer that the broker gives one message. It is acknowledged when
    the event is in Roost's database: a triggerer that dies before, or a task that is cleared, gives
    it back to the queue. So each message is taken at least once. All triggers of a runner on one
    connection id share a connection, those on one queue a channel.

    Args:
        conn_id: the connection, of the type ``amqp`` or ``amqps``; its schema is the virtual host.
        queue: which queue; it must exist.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(self, conn_id: str, queue: str) -> None:
        for name, given in (("conn_id", conn_id), ("queue", queue)):
            if not isinstance(given, str) or not given:
                raise RoostException(f"AmqpTrigger needs a {name}, not {given!r}")
        self.conn_id = conn_id
        self.queue = queue
        self._taken: Consumer | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments; the connection by its id only."""
        return ("roost.triggers.AmqpTrigger", {"conn_id": self.conn_id, "queue": self.queue})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Consume one message."""
        from roost.triggers.amqp_consumers import Consumers, described
        from roost.triggers.servers import join, leave

        hub = join(Consumers, self.conn_id)
        try:
            self._taken = taken = await hub.take(self.queue)
            yield TriggerEvent(described(self.queue, taken.message))
        finally:
            if self._taken is not None:
                await self._taken.give_back()
            await leave(hub)

    async def on_stored(self) -> None:
        """The message is this task's for good."""
        if self._taken is not None:
            taken, self._taken = self._taken, None
            await taken.acknowledge()

    def __repr__(self) -> str:
        return f"<AmqpTrigger {self.queue} on {self.conn_id}>"
