"""FileTrigger: waits until a file is there (poll lane)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from glob import glob, has_magic
from typing import Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

__all__ = ["FileTrigger", "matching_files"]


class FileTrigger(BaseTrigger):
    """Fires when every one of ``paths`` exists, with the sorted list of files as payload.

    Args:
        paths: a path or glob (``**`` crosses folders), or several; each must match something.
        poke_interval: seconds between two looks.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(self, paths: str | Sequence[str], poke_interval: float = 5.0) -> None:
        self.paths = [paths] if isinstance(paths, str) else list(paths)
        if not self.paths or not all(isinstance(path, str) and path for path in self.paths):
            raise RoostException(f"FileTrigger needs a path or paths, not {paths!r}")
        if poke_interval <= 0:
            raise RoostException(f"poke_interval must be more than 0 s, not {poke_interval!r}")
        self.poke_interval = float(poke_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Paths and interval."""
        return (
            "roost.triggers.FileTrigger",
            {"paths": self.paths, "poke_interval": self.poke_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every ``poke_interval`` seconds."""
        import asyncio  # late: sensors make this trigger in processes that never run it

        # A plain path is one stat(); a glob may walk a large or slow tree, so it gets a thread.
        plain = not any(has_magic(path) for path in self.paths)
        while True:
            found = (
                matching_files(self.paths)
                if plain
                else await asyncio.to_thread(matching_files, self.paths)
            )
            if found is not None:
                yield TriggerEvent(found)
                return
            self.note("not every path has a file")
            await asyncio.sleep(self.poke_interval)

    def __repr__(self) -> str:
        return f"<FileTrigger {', '.join(self.paths)}>"


def matching_files(paths: Sequence[str]) -> list[str] | None:
    """All files that ``paths`` match, sorted; None as long as one of them matches nothing."""
    found: set[str] = set()
    for path in paths:
        matches = glob(path, recursive=True) if has_magic(path) else [path]
        present = [match for match in matches if os.path.exists(match)]
        if not present:
            return None
        found.update(present)
    return sorted(found)
