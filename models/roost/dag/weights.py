"""Priority weights of the tasks of a DAG (S42-S44)."""

from __future__ import annotations

from collections.abc import Sequence

from roost.dag.model import SerializedTask

__all__ = ["effective_weights"]


def effective_weights(tasks: Sequence[SerializedTask]) -> list[int]:
    """The effective weight of each task, in the order given (topological)."""
    raise NotImplementedError
