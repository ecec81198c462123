"""A wake-up that is never lost: set while nobody sleeps, it ends the next sleep at once."""

from __future__ import annotations

import anyio

__all__ = ["Wake"]


class Wake:
    """One sleeper, any number of wakers, all on one loop."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """End the present sleep, or the next one."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until woken, at most ``timeout_s`` seconds."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        self._event = anyio.Event()
