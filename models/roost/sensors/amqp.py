"""AmqpSensor: wait for a message of an AMQP broker."""

from __future__ import annotations

from typing import Any

from roost.sensors.event import EventSensor
from roost.triggers.amqp import AmqpTrigger

__all__ = ["AmqpSensor"]


class AmqpSensor(EventSensor):
    """Take one message of a queue; the result is a dict with its ``body``, ``headers`` and so on.

    The message is acknowledged when the event is in Roost's database, so each is taken at least
    once. One that is too large to be stored fails the task and goes back to the queue.

    Args:
        queue_name: which queue, templated; it must exist.
        conn_id: the connection, of the type ``amqp`` or ``amqps``; its schema is the virtual host.
        **kwargs: see BaseSensorOperator; those about looking (``poke_interval``, ``mode``, …) have
            no effect.
    """

    template_fields = ("queue_name",)

    def __init__(self, *, queue_name: str, conn_id: str = "amqp_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.queue_name = queue_name
        self.conn_id = conn_id

    def make_trigger(self, context: dict[str, Any]) -> AmqpTrigger:
        """One consumer."""
        return AmqpTrigger(self.conn_id, self.queue_name)
