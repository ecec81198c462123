"""The folders in which the file triggers of a runner wait for something, on one inotify queue."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from roost.support import inotify
from roost.triggers.servers import Hub

__all__ = ["Folders", "Place", "Watch"]

log = logging.getLogger(__name__)

Place = tuple[str, str | None]
"""A folder and a name in it; None: any name."""


class Watch:
    """One trigger that waits for changes at some places."""

    __slots__ = ("_missed", "_timer", "_waiter", "numbers", "places")

    def __init__(self, places: Sequence[Place], numbers: Sequence[int]) -> None:
        self.places = places
        self.numbers = numbers
        self._missed = False
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, longest: float) -> asyncio.Future[bool]:
        """To be awaited: True when something has happened, False when the time is up."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._timer = loop.call_later(longest, self.wake, False)
        if self._missed:  # it happened while the trigger was looking
            self.wake()
        return self._waiter

    def wake(self, happened: bool = True) -> None:
        """Something has happened, or the time is up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is None or self._waiter.done():
            self._missed = True
        else:
            self._missed = False
            self._waiter.set_result(happened)


class Folders(Hub):
    """One inotify queue; where there is none, watches are woken by their time only."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        # By number of the folder and name in it. The kernel gives no number twice. Mostly a name
        # is waited for by one, and a set weighs as much as the rest of what is kept for it.
        self._watches: dict[int, dict[str | None, Watch | set[Watch]]] = {}
        try:
            self._queue = inotify.open_queue()
        except OSError as error:
            log.warning("files are looked at every poke_interval only: %s", error)
            self._queue = -1
        else:
            asyncio.get_running_loop().add_reader(self._queue, self._read)

    def enter(self, places: Sequence[Place]) -> Watch:
        """Wait for changes there; places that cannot be watched are left to the clock."""
        watch = Watch(places, tuple([self._number(folder) for folder, _ in places]))
        for number, (_, name) in zip(watch.numbers, places, strict=True):
            if number < 0:
                continue
            by_name = self._watches.setdefault(number, {})
            there = by_name.get(name)
            if there is None or there is watch:
                by_name[name] = watch
            elif isinstance(there, set):
                there.add(watch)
            else:
                by_name[name] = {there, watch}
        return watch

    def knows(self, watch: Watch) -> bool:
        """Whether all of its folders are watched still: one may have been replaced by another."""
        return all(number < 0 or number in self._watches for number in watch.numbers)

    def leave(self, watch: Watch) -> None:
        """Wait no more."""
        watch.wake()
        for number, (_, name) in zip(watch.numbers, watch.places, strict=True):
            by_name = self._watches.get(number, {})
            there = by_name.get(name)
            if isinstance(there, set):
                there.discard(watch)
            if there is watch or there == set():
                del by_name[name]
            if there is None:
                continue
            if not by_name:
                del self._watches[number]
                inotify.remove(self._queue, number)

    async def close(self) -> None:
        if self._queue >= 0:
            asyncio.get_running_loop().remove_reader(self._queue)
            os.close(self._queue)
            self._queue = -1

    def _number(self, folder: str) -> int:
        if self._queue < 0:
            return -1
        try:
            return inotify.add(self._queue, folder)
        except OSError:
            return -1

    def _read(self) -> None:
        """Wake each watch once, whatever has happened at its places."""
        woken: set[Watch] = set()
        for number, what, name in inotify.events(self._queue):
            if what & inotify.OVERFLOW:
                for by_name in self._watches.values():
                    for there in by_name.values():
                        woken |= _as_set(there)
            by_name = self._watches.get(number, {})
            if name:
                woken |= _as_set(by_name.get(name)) | _as_set(by_name.get(None))
            else:  # the folder itself was moved, deleted or changed
                for there in by_name.values():
                    woken |= _as_set(there)
            if what & inotify.AWAY and number in self._watches:
                # What has its name now is another one; its watches enter that.
                del self._watches[number]
                if not what & inotify.GONE:
                    inotify.remove(self._queue, number)
        for watch in woken:
            watch.wake()


def _as_set(there: Watch | set[Watch] | None) -> set[Watch]:
    return there if isinstance(there, set) else set() if there is None else {there}
