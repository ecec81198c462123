"""What sensors share that are told by a server: there is nothing to look at in between."""

from __future__ import annotations

from typing import Any

from roost.dag.operator import BaseOperator
from roost.dag.trigger import BaseTrigger
from roost.sensors.base import BaseSensorOperator

__all__ = ["EventSensor"]


class EventSensor(BaseSensorOperator):
    """Defers at once; the event's payload is the task's result."""

    has_trigger = True

    def make_trigger(self, context: dict[str, Any]) -> BaseTrigger:
        """What it waits for."""
        raise NotImplementedError

    def execute(self, context: dict[str, Any]) -> Any:
        """Wait; nothing can be looked at, so there is no other way than to defer."""
        trigger = self.make_trigger(context)
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
