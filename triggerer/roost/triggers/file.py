"""Triggers that wait until files are there (poll lane)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from glob import glob, has_magic
from typing import TYPE_CHECKING, Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

if TYPE_CHECKING:
    from roost.triggers.folders import Place

__all__ = ["FileDeleteTrigger", "FileTrigger", "matching_files"]

# A busy folder does not have us look at it more often.
_BREATH_S = 0.1


class FileTrigger(BaseTrigger):
    """Fires when every one of ``paths`` exists, with the sorted list of files as payload.

    Linux tells of changes in the nearest folder that exists, so most files are seen at once. What
    it does not tell - changes by others on a network file system, and below the folders of a
    pattern - is seen by looking every ``poke_interval`` seconds.

    Args:
        paths: a path or glob (``**`` crosses folders), or several; each must match something.
        poke_interval: seconds between two looks.
        min_size: bytes that a file must have to count.
        settled_for: seconds for which a file must not have changed to count.
        recursive: False: ``**`` means the same as ``*``.

    Raises:
        RoostException: an argument is wrong.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        poke_interval: float = 5.0,
        min_size: int = 0,
        settled_for: float = 0.0,
        recursive: bool = True,
    ) -> None:
        name = type(self).__name__
        self.paths = [paths] if isinstance(paths, str) else list(paths)
        if not self.paths or not all(isinstance(path, str) and path for path in self.paths):
            raise RoostException(f"{name} needs a path or paths, not {paths!r}")
        if poke_interval <= 0:
            raise RoostException(f"poke_interval must be more than 0 s, not {poke_interval!r}")
        if min_size < 0 or settled_for < 0:
            raise RoostException("min_size and settled_for must not be negative")
        self.poke_interval = float(poke_interval)
        self.min_size = min_size
        self.settled_for = float(settled_for)
        self.recursive = recursive

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its arguments."""
        return (
            f"roost.triggers.{type(self).__name__}",
            {
                "paths": self.paths,
                "poke_interval": self.poke_interval,
                "min_size": self.min_size,
                "settled_for": self.settled_for,
                "recursive": self.recursive,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look when something has changed, and every ``poke_interval`` seconds."""
        import asyncio  # late: sensors make this trigger in processes that never run it

        from roost.triggers.folders import Folders
        from roost.triggers.servers import join, leave

        # A plain path is one stat(); a glob may walk a large or slow tree, so it gets a thread.
        plain = not any(has_magic(path) for path in self.paths)
        hub = join(Folders, "")
        watch = hub.enter(_places(self.paths))
        happened = False
        try:
            while True:
                found = self.look() if plain else await asyncio.to_thread(self.look)
                if found is not None:
                    self.found = found
                    yield TriggerEvent(found)
                    return
                self.note("not every path has a file")
                pause = self.poke_interval
                if happened and self.settled_for:
                    pause = min(pause, self.settled_for)
                happened = await watch.wait(pause)
                if happened and not plain:
                    await asyncio.sleep(_BREATH_S)
                places = _places(self.paths)
                if places != watch.places or not hub.knows(watch):
                    hub.leave(watch)
                    watch = hub.enter(places)
        finally:
            hub.leave(watch)
            await leave(hub)

    def look(self) -> list[str] | None:
        """The files, if all are there and as they should be."""
        return matching_files(
            self.paths,
            min_size=self.min_size,
            settled_for=self.settled_for,
            recursive=self.recursive,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.paths)}>"


class FileDeleteTrigger(FileTrigger):
    """Fires as FileTrigger does, and deletes the files when its event is in the database.

    So a file wakes at least one task, and no later one. Folders are left alone.
    """

    async def on_stored(self) -> None:
        """The files have done their work."""
        import asyncio

        await asyncio.to_thread(_delete, self.found)


def matching_files(
    paths: Sequence[str],
    *,
    min_size: int = 0,
    settled_for: float = 0.0,
    recursive: bool = True,
) -> list[str] | None:
    """All files that ``paths`` match, sorted; None as long as one of them matches nothing.

    Args:
        paths: paths and globs.
        min_size: bytes that a file must have to count.
        settled_for: seconds for which it must not have changed to count.
        recursive: whether ``**`` crosses folders.
    """
    found: set[str] = set()
    for path in paths:
        matches = glob(path, recursive=recursive) if has_magic(path) else [path]
        present = [match for match in matches if _counts(match, min_size, settled_for)]
        if not present:
            return None
        found.update(present)
    return sorted(found)


def _counts(path: str, min_size: int, settled_for: float) -> bool:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # not there, or no path at all
        return False
    # Not mtime: a copy may have that of its original, and a file that was moved here its own.
    return stat.st_size >= min_size and time.time() - stat.st_ctime >= settled_for


def _places(paths: Sequence[str]) -> tuple[Place, ...]:
    """For each path the nearest folder that exists, and the name that is to appear in it."""
    places: list[Place] = []
    for path in paths:
        full = os.path.abspath(path)
        folder, name = os.path.split(full)
        while has_magic(folder) or (folder != "/" and not os.path.isdir(folder)):
            folder, name = os.path.split(folder)
        # One copy of what thousands may have in common.
        places.append((sys.intern(folder), None if has_magic(name) else name))
    return tuple(places)


def _delete(paths: Sequence[str]) -> None:
    for path in paths:
        if not os.path.isdir(path):
            os.unlink(path)
