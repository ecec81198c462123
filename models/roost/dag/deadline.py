"""Deadlines: a moment by which a run should have ended, and who is told if it has not (H22)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from roost.dag.callbacks import Callbacks, as_callbacks
from roost.exceptions import DagError

__all__ = ["DeadlineAlert", "DeadlineReference", "Reference", "as_deadlines"]


class Reference(NamedTuple):
    """What a deadline counts from; made by :class:`DeadlineReference`."""

    kind: Literal["logical_date", "queued_at", "fixed", "average"]
    at: datetime | None = None


class DeadlineReference:
    """The moments that a deadline can count from."""

    DAGRUN_LOGICAL_DATE: Final = Reference("logical_date")
    """The run's logical date; a run without one has no such deadline."""

    DAGRUN_QUEUED_AT: Final = Reference("queued_at")
    """When the run was created."""

    @staticmethod
    def FIXED_DATETIME(moment: datetime) -> Reference:
        """A moment of the calendar; a naive one is in the time zone of the DAG's start_date."""
        if not isinstance(moment, datetime):
            raise DagError(f"FIXED_DATETIME takes a datetime, not {moment!r}")
        return Reference("fixed", moment)

    @staticmethod
    def AVERAGE_RUNTIME() -> Reference:
        """When the run was created, plus the mean run time of the DAG's last ten successful runs.

        A DAG without a successful run has no such deadline.
        """
        return Reference("average")


class DeadlineAlert:
    """A limit for every run of a DAG (H22): ``DAG(deadline=DeadlineAlert(…))``.

    Args:
        reference: what it counts from, see :class:`DeadlineReference`.
        interval: added to that; may be negative.
        callback: called in a task process if the run has not ended by then, once; a function or a
            list of functions, each with the run's context, in which ``deadline`` is the moment.
        name: what it is called in ``context["reason"]``.
    """

    def __init__(
        self,
        reference: Reference,
        interval: timedelta,
        callback: Callbacks,
        name: str = "",
    ) -> None:
        if not isinstance(reference, Reference):
            raise DagError(
                "deadline: reference must be DeadlineReference.DAGRUN_LOGICAL_DATE, "
                f"DAGRUN_QUEUED_AT, FIXED_DATETIME(…) or AVERAGE_RUNTIME(), not {reference!r}"
            )
        if not isinstance(interval, timedelta):
            raise DagError(f"deadline: interval must be a timedelta, not {interval!r}")
        self.reference = reference
        self.interval = interval
        self.deadline_callback = as_callbacks("deadline", "callback", callback)
        if not self.deadline_callback:
            raise DagError("deadline: callback is missing; give a function")
        self.name = name

    def __repr__(self) -> str:
        return f"<DeadlineAlert {self.name or self.reference.kind}>"


def as_deadlines(of: str, value: Any) -> list[DeadlineAlert]:
    """One deadline, several, or None, as a list.

    Raises:
        DagError: something else was given.
    """
    found = list(value) if isinstance(value, list | tuple) else [value] if value else []
    for one in found:
        if not isinstance(one, DeadlineAlert):
            raise DagError(f"{of}: deadline must be a DeadlineAlert or a list of them, not {one!r}")
    return found
