"""The external lane: events that somebody sent, given to the triggers that wait for their keys.

It has a loop of its own beside that of the other lanes: an event that wakes ten thousand, or waits
for a user's clear to commit, keeps no timer waiting.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

import anyio

from roost.exceptions import DecryptionError
from roost.models.queries import external
from roost.support.crypto import Keyring
from roost.support.service import Wake
from roost.support.stats import Stats
from roost.triggerer.database import Database

__all__ = ["ExternalLane"]

log = logging.getLogger(__name__)

_TELL_EVERY_S = 60.0
# A pass that found nothing is followed by a rest of so many times as long.
_REST = 5.0
_LONGEST_REST_S = 2.0


class ExternalLane:
    """Matches events with triggers when it is told that there is something to match.

    Args:
        database: where both are.
        keys: that the events' payloads are encrypted with.
        stats: counts the events.
        on_fired: called with how many triggers fired, after it was committed.
    """

    def __init__(
        self, database: Database, keys: Keyring, stats: Stats, on_fired: Callable[[int], None]
    ) -> None:
        self._db = database
        self._keys = keys
        self._stats = stats
        self._on_fired = on_fired
        self._wake = Wake()
        self._told: dict[int, float] = {}  # when we last said so of an event that cannot be read

    def look(self) -> None:
        """Have it look."""
        self._wake.set()

    async def run(self) -> None:
        """Match until cancelled."""
        while True:
            await self._wake.wait()
            began = time.monotonic()
            events = 0
            after: str | None = ""
            while after is not None:
                step = partial(external.match, unseal=self._unseal, after=after)
                done = await self._db.until_done(step)
                after = done.after
                events += done.events
                if done.woken:
                    self._stats.incr("events.taken", done.events)
                    self._on_fired(done.woken)
                for event_id, why in done.unreadable:
                    self._tell(event_id, why)
            if not events:  # with many keys on both sides a pass in vain takes its time
                rest = (time.monotonic() - began) * _REST
                await anyio.sleep(min(rest, _LONGEST_REST_S))

    def _unseal(self, event_id: int, payload: str) -> str:
        try:
            self._keys.decrypt(payload, f"event {event_id}")
        except DecryptionError as error:
            raise ValueError(str(error)) from None
        return payload  # as it is: whoever hands it to user code decrypts it

    def _tell(self, event_id: int, why: str) -> None:
        """It stays for a triggerer that can read it; say so now and then."""
        now = time.monotonic()
        self._told = {key: at for key, at in self._told.items() if now - at < _TELL_EVERY_S}
        if event_id not in self._told:
            self._told[event_id] = now
            log.error("%s; it is kept, and tasks go on waiting for it", why)
