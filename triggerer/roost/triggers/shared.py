"""What many polls of a runner use one after the other, kept until nobody has for a while.

For triggers in a pool, which have no end of their own at which something could be closed
(:class:`roost.triggers.servers.Hub` is for those that have one).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = ["IDLE_S", "Shared", "lend"]

IDLE_S = 120.0


class Shared:
    """Something worth keeping.

    Attributes:
        users: who use it now.
        used_at: when it was last given back, on the loop's clock.
        spent: whoever comes next gets another one.
    """

    def __init__(self) -> None:
        self.users = 0
        self.used_at = 0.0
        self.spent = False

    async def close(self) -> None:
        """Let go of everything."""


S = TypeVar("S", bound=Shared)
_Shelf = dict[tuple[type[Shared], str], Shared]
_shelves: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shelf] = WeakKeyDictionary()


@asynccontextmanager
async def lend(kind: type[S], made_of: str, make: Callable[[], Awaitable[S]]) -> AsyncIterator[S]:
    """Use the thing of this kind.

    Args:
        kind: its class.
        made_of: all that it depends on: where that changes, there is another one.
        make: makes it when there is none.
    """
    loop = asyncio.get_running_loop()
    shelf = _shelves.setdefault(loop, {})
    place = (kind, made_of)
    thing = shelf.get(place)
    if thing is None or thing.spent:
        thing = shelf[place] = await make()
        _close_when_idle(loop, place, thing)
    thing.users += 1
    try:
        yield thing  # type: ignore[misc]  # the place names its class
    finally:
        thing.users -= 1
        thing.used_at = loop.time()


def _close_when_idle(
    loop: asyncio.AbstractEventLoop, place: tuple[type[Shared], str], thing: Shared
) -> None:
    def look() -> None:
        left = thing.used_at + IDLE_S - loop.time()
        if thing.users or left > 0:
            loop.call_later(max(left, 1.0), look, context=context)
        else:
            shelf = _shelves.get(loop, {})
            if shelf.get(place) is thing:
                del shelf[place]
            closing.append(loop.create_task(thing.close()))  # in a copy of this context

    closing: list[asyncio.Task[None]] = []  # kept: a loop has only weak references
    context = Context()  # nobody's work in particular
    thing.used_at = loop.time()
    loop.call_later(IDLE_S, look, context=context)
