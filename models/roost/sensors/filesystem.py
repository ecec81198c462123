"""FileSensor: wait for a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from roost.dag.connection import Connection
from roost.sensors.base import BaseSensorOperator, PokeReturnValue
from roost.triggers.file import FileTrigger, matching_files

__all__ = ["FileSensor"]


class FileSensor(BaseSensorOperator):
    """Wait until a file is there; the task's return value is the sorted list of files found.

    Args:
        filepath: path or glob (``**`` crosses folders), or several, templated; each must match
            something. Relative ones need ``fs_conn_id``.
        fs_conn_id: connection whose extra holds a ``path`` that relative ones start from; None:
            the folder that the worker runs in.
        poke_interval: time between two looks, a timedelta or seconds.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.filepath = filepath
        self.fs_conn_id = fs_conn_id

    def paths(self) -> list[str]:
        """What to look for."""
        paths = [self.filepath] if isinstance(self.filepath, str) else list(self.filepath)
        if self.fs_conn_id is None:
            return paths
        start = str(Connection.get(self.fs_conn_id).extra_dejson.get("path") or "/")
        return [os.path.join(start, path) for path in paths]

    def poke(self, context: dict[str, Any]) -> PokeReturnValue:
        """Whether all of it is there."""
        found = matching_files(self.paths())
        if found is not None:
            self.log.info("found %s", ", ".join(found))
        return PokeReturnValue(found is not None, found)

    def make_trigger(self, context: dict[str, Any]) -> FileTrigger:
        """Looks every ``poke_interval``."""
        return FileTrigger(self.paths(), self.poke_interval.total_seconds())

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """The files found."""
        self.log.info("found %s", ", ".join(event))
        return event
