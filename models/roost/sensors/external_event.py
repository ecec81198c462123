"""ExternalEventSensor: waits for an event that somebody outside sends."""

from __future__ import annotations

from typing import Any

from roost.exceptions import DagError
from roost.sensors.event import EventSensor
from roost.triggers.external import ExternalTrigger

__all__ = ["ExternalEventSensor"]


class ExternalEventSensor(EventSensor):
    """Wait for an event of ``key``; its payload is the task's result.

    It holds no slot, no process and no memory meanwhile. ``roost events send KEY`` sends the
    event, or whoever was given a URL of ``callback_url(key)``.

    Args:
        key: what event; 1 to 250 printable characters, templated.
        **kwargs: see BaseSensorOperator; those about looking (``poke_interval``, ``mode``, …) have
            no effect.
    """

    template_fields = ("key",)

    def __init__(self, *, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(key, str) or not key:
            raise DagError(f"task {self.task_id!r}: key must be a text, not {key!r}")
        self.key = key

    def make_trigger(self, context: dict[str, Any]) -> ExternalTrigger:
        """A row of the external lane."""
        return ExternalTrigger(self.key)
