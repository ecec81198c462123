"""ExternalEventSensor: waits for an event that somebody outside sends."""

from __future__ import annotations

from typing import Any

from roost.dag.operator import BaseOperator
from roost.exceptions import DagError
from roost.sensors.base import BaseSensorOperator
from roost.support.event_keys import check_key
from roost.triggers.external import ExternalTrigger

__all__ = ["ExternalEventSensor"]


class ExternalEventSensor(BaseSensorOperator):
    """Wait for an event of ``key``; its payload is the task's result.

    It holds no slot, no process and no memory meanwhile. ``roost events send KEY`` sends the
    event, or whoever was given a URL of ``callback_url(key)``.

    Args:
        key: what event; 1 to 250 printable characters, templated.
        **kwargs: see BaseSensorOperator; those about looking (``poke_interval``, ``mode``, …) have
            no effect.
    """

    template_fields = ("key",)
    has_trigger = True

    def __init__(self, *, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(key, str) or not key:
            raise DagError(f"task {self.task_id!r}: key must be a text, not {key!r}")
        self.key = key

    def execute(self, context: dict[str, Any]) -> Any:
        """Wait; nothing can be looked at, so there is no other way than to defer."""
        trigger = ExternalTrigger(check_key(self.key))
        self.log.info("waiting for %r", trigger)
        BaseOperator.defer(
            self,
            trigger=trigger,
            method_name="execute_complete",
            timeout=self.timeout,
            on_timeout="skip" if self.soft_fail or self.never_fail else "fail",
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """The payload."""
        return event
