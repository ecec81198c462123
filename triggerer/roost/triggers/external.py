"""ExternalTrigger: waits until somebody says so, as a row (external lane)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException
from roost.support.event_keys import check_key

__all__ = ["ExternalTrigger"]


class ExternalTrigger(BaseTrigger):
    """Fires when an event of its key is sent, with the event's payload.

    By ``roost events send KEY``, or by whoever was given a URL of ``callback_url(KEY)``. An event
    wakes everybody who waits for its key; one that was sent before anybody waited is kept for a
    while (``triggerer.event_retention``), and the first to wait takes it.

    Args:
        key: 1 to 250 printable characters, which do not begin with ``roost:``.

    Raises:
        RoostException: the key cannot be one.
    """

    def __init__(self, key: str) -> None:
        self.key = check_key(key)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The key."""
        return ("roost.triggers.ExternalTrigger", {"key": self.key})

    @property
    def external_key(self) -> str:
        """The key: a triggerer needs to know no more."""
        return self.key

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never called where a triggerer is."""
        raise RoostException(f"{self!r} is fired by an event; it cannot be run by itself")
        yield TriggerEvent()  # makes this an async generator

    def __repr__(self) -> str:
        return f"<ExternalTrigger {self.key!r}>"
