"""FileSensor: wait for a file."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from roost.dag import knobs
from roost.dag.connection import Connection
from roost.sensors.base import BaseSensorOperator, PokeReturnValue
from roost.triggers.file import FileTrigger

__all__ = ["FileSensor"]


class FileSensor(BaseSensorOperator):
    """Wait until a file is there; the task's return value is the sorted list of files found.

    Args:
        filepath: path or glob (``**`` crosses folders), or several, templated; each must match
            something.
        fs_conn_id: connection whose extra holds a ``path`` that relative ones start from; None:
            the folder that the worker runs in, also for the looks of the triggerer.
        poke_interval: time between two looks, a timedelta or seconds; where it defers, most files
            are seen at once.
        min_size: bytes that a file must have to count.
        settled_for: time for which a file must not have changed to count, a timedelta or seconds.
        recursive: False: ``**`` means the same as ``*``.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("filepath",)
    has_trigger = True

    def __init__(
        self,
        *,
        filepath: str | Sequence[str],
        fs_conn_id: str | None = None,
        poke_interval: timedelta | float = 5.0,
        min_size: int = 0,
        settled_for: timedelta | float = 0.0,
        recursive: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.filepath = filepath
        self.fs_conn_id = fs_conn_id
        self.min_size = knobs.whole(f"task {self.task_id!r}", "min_size", min_size, least=0)
        self.settled_for = knobs.duration(f"task {self.task_id!r}", "settled_for", settled_for)
        self.recursive = recursive

    def paths(self) -> list[str]:
        """What to look for."""
        paths = [self.filepath] if isinstance(self.filepath, str) else list(self.filepath)
        if self.fs_conn_id is None:  # the triggerer may run elsewhere
            here = glob.escape(os.getcwd())
            return [os.path.join(here, path) for path in paths]
        start = str(Connection.get(self.fs_conn_id).extra_dejson.get("path") or "/")
        return [os.path.join(start, path) for path in paths]

    def poke(self, context: dict[str, Any]) -> PokeReturnValue:
        """Whether all of it is there."""
        found = self.make_trigger(context).look()
        if found is not None:
            self.log.info("found %s", ", ".join(found))
        return PokeReturnValue(found is not None, found)

    def make_trigger(self, context: dict[str, Any]) -> FileTrigger:
        """Looks every ``poke_interval``."""
        return FileTrigger(
            self.paths(),
            self.poke_interval.total_seconds(),
            self.min_size,
            self.settled_for.total_seconds(),
            self.recursive,
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """The files found."""
        self.log.info("found %s", ", ".join(event))
        return event
