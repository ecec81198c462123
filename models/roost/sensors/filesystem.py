"""FileSensor: wait for a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roost.sensors.base import BaseSensorOperator
from roost.triggers.file import FileTrigger, matching_files

__all__ = ["FileSensor"]


class FileSensor(BaseSensorOperator):
    """Wait until a file is there; the task's return value is the sorted list of files found.

    Args:
        filepath: path or glob (``**`` crosses folders), or several, templated; relative ones
            are read from the folder that the worker runs in, so give absolute ones.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("filepath",)

    def __init__(self, *, filepath: str | Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filepath = filepath

    def execute(self, context: dict[str, Any]) -> Any:
        """Look once, then defer."""
        paths = [self.filepath] if isinstance(self.filepath, str) else list(self.filepath)
        found = matching_files(paths)
        if found is not None:
            return self.execute_complete(context, found)
        self.log.info("waiting for %s", ", ".join(paths))
        return self.defer(
            trigger=FileTrigger(paths, self.poke_interval.total_seconds()),
            method_name="execute_complete",
            timeout=self.timeout,
        )

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """The files found."""
        self.log.info("found %s", ", ".join(event))
        return event
