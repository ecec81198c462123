"""Executors whose tasks run on this host: ``roost worker`` claims rows of the dispatch table."""

from __future__ import annotations

from collections.abc import Sequence

from roost.executors.base import BaseExecutor
from roost.models.queries.handoffs import Handoff

__all__ = ["LocalExecutor", "SequentialExecutor"]


class LocalExecutor(BaseExecutor):
    """The dispatch table is the queue; submitting is to wake the workers that sleep."""

    def submit(self, handoffs: Sequence[Handoff]) -> None:
        """Ring the workers of this host. One that misses it looks within its poll interval."""
        if handoffs:
            self._bell.ring("worker")


class SequentialExecutor(LocalExecutor):
    """One task at a time."""

    @property
    def parallelism(self) -> int:
        """Always 1."""
        return 1
