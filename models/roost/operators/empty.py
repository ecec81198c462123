"""EmptyOperator: a task that only stands in the graph (H27)."""

from __future__ import annotations

from typing import Any, ClassVar

from roost.dag.operator import BaseOperator

__all__ = ["DummyOperator", "EmptyOperator"]


class EmptyOperator(BaseOperator):
    """Does nothing; the scheduler completes it without a process."""

    empty_body: ClassVar[bool] = True

    def execute(self, context: dict[str, Any]) -> None:
        """Nothing."""


DummyOperator = EmptyOperator
