"""What triggers that wait for a server share: its connection, its client library, patience.

All of it lives in the runner's one loop. Nothing here is imported by who only makes a trigger:
client libraries are loaded when a trigger first runs, in a thread, since their import would keep
every other trigger from its turn.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from types import ModuleType
from typing import Any, TypeVar

from roost.dag.connection import Connection
from roost.exceptions import RoostException

__all__ = [
    "Hub",
    "Patience",
    "cancel_task",
    "client_library",
    "end_task",
    "join",
    "leave",
    "one_line",
    "start_task",
]

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0


async def client_library(name: str, extra: str) -> ModuleType:
    """A module that an extra of roost brings.

    Raises:
        RoostException: it is not installed; says what to install.
    """
    try:
        return await asyncio.to_thread(importlib.import_module, name)
    except ImportError as error:
        raise RoostException(
            f"{name} is not installed where the triggerer runs ({error}): "
            f"pip install 'roost[{extra}]'"
        ) from None


def one_line(error: BaseException) -> str:
    """The error in one line: what a log or a task's reason has room for."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:500] or type(error).__name__


class Patience:
    """Pauses between tries to reach a server, and when to give up.

    Args:
        conn_id: named in what it says.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._since: float | None = None
        self._pause = _FIRST_PAUSE_S
        self._until = 0.0

    def reached(self) -> None:
        """The server answers: the next trouble starts anew."""
        self._since = None
        self._pause = _FIRST_PAUSE_S

    async def wait(self, error: BaseException) -> None:
        """Pause after a try that failed, longer each time.

        Raises:
            RoostException: tries have failed for ten minutes.
        """
        now = time.monotonic()
        if now < self._until:  # others of this hub have seen it, too: one trouble, one pause
            await asyncio.sleep((self._until - now) * random.uniform(1.0, 1.2))  # noqa: S311
            return
        if self._since is None:
            self._since = now
        if now - self._since > PATIENCE_S:
            raise RoostException(
                f"connection {self._conn_id!r}: not reached for {PATIENCE_S / 60:g} minutes: "
                f"{one_line(error)}"
            )
        log.warning(
            "connection %r: %s; trying again in %.1f s",
            self._conn_id, one_line(error), self._pause,
        )  # fmt: skip
        # Spread, so that those of many triggerers do not come back in the same moment.
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._until = now + pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause)


class Hub:
    """What many triggers of one runner use together, e.g. one connection to a server.

    It is made for the first of them and closed when the last one leaves.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.users = 0
        #: Of the trigger that joined last: asks for what the hub needs, which is no trigger itself.
        self.context = copy_context()
        #: Left by the hub itself: whoever comes next gets another one.
        self.spent = False

    async def connection(self, conn_id: str) -> Connection:
        """The connection of this id, asked for anew: its password may have been changed.

        Raises:
            NotFound: there is none.
        """
        loop = asyncio.get_running_loop()
        while True:
            # The trigger in whose name it is asked may end meanwhile; then another one asks.
            context = self.context
            try:
                ask = Connection.get_async(conn_id)
                return await loop.create_task(ask, context=context.copy())
            except RoostException:
                if context is self.context:
                    raise

    async def close(self) -> None:
        """Let go of everything."""


H = TypeVar("H", bound=Hub)
T = TypeVar("T")
_hubs: dict[tuple[asyncio.AbstractEventLoop, type[Hub], str], Hub] = {}


def join(kind: type[H], key: str) -> H:
    """Use the hub of this kind and key, ``kind(key)``, until :func:`leave`.

    A pair of functions, not a ``with`` block: what that keeps would be half of what a waiting
    trigger weighs.
    """
    place = (asyncio.get_running_loop(), kind, key)
    hub = _hubs.get(place)
    if hub is None or hub.spent:
        hub = _hubs[place] = kind(key)
    hub.users += 1
    hub.context = copy_context()
    return hub  # type: ignore[return-value]  # the place names its class


async def leave(hub: Hub) -> None:
    """Done with it; the last one closes it."""
    hub.users -= 1
    if not hub.users:
        for place in [place for place, other in _hubs.items() if other is hub]:
            del _hubs[place]
        # What it cancels is nobody's, and no trigger may cancel what is not its own.
        await start_task(hub.close(), f"closing-{hub.key}")


def start_task(coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that is nobody's in particular: it does not count as the trigger's that starts it."""
    return Context().run(asyncio.get_running_loop().create_task, coro, name=name)


def cancel_task(task: asyncio.Task[None]) -> None:
    """Cancel what :func:`start_task` has started, in nobody's name: a trigger may not."""
    Context().run(task.cancel)


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    cancel_task(task)
    with suppress(asyncio.CancelledError):
        await asyncio.wait([task])
