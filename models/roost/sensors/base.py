"""What all sensors share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from roost.dag import knobs
from roost.dag.operator import BaseOperator

__all__ = ["BaseSensorOperator"]


class BaseSensorOperator(BaseOperator):
    """A task that defers until something is so.

    Args:
        poke_interval: time between two looks, a timedelta or seconds.
        timeout: the longest wait, a timedelta or seconds; None waits for ever.
        **kwargs: see BaseOperator.
    """

    def __init__(
        self,
        *,
        poke_interval: timedelta | float = 5.0,
        timeout: timedelta | float | None = timedelta(days=7),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        of = f"task {self.task_id!r}"
        self.poke_interval = knobs.duration(of, "poke_interval", poke_interval)
        self.timeout = knobs.maybe_duration(of, "timeout", timeout)

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """Called when what was waited for is so; returns nothing unless a subclass does."""
