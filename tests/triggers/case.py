"""Triggers run as a runner runs them, without one: built from what was stored, and cleaned up."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from roost.dag.registry import resolve_trigger
from roost.dag.trigger import BaseTrigger, TriggerEvent, source_of
from roost.support import typedjson

__all__ = ["Waiting", "descriptors", "fired", "remade", "until", "waiting"]


def remade(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as a runner makes it from what the database holds."""
    name, kwargs = trigger.serialize()
    assert name == f"roost.triggers.{type(trigger).__name__}"
    stored: Any = typedjson.decode(typedjson.encode(kwargs))
    made: BaseTrigger = resolve_trigger(source_of(type(trigger)), [], None)(**stored)
    assert made.serialize() == (name, kwargs)
    return made


class Waiting:
    """A trigger that runs in the test's loop."""

    def __init__(self, trigger: BaseTrigger) -> None:
        self.trigger = remade(trigger)
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> Any:
        events: Any = self.trigger.run()
        try:
            event = await anext(events)
            assert isinstance(event, TriggerEvent)
            # As on its way to the database and into the resumed task.
            return typedjson.decode(typedjson.encode(event.payload))
        finally:
            await events.aclose()
            await self.trigger.cleanup()

    @property
    def done(self) -> bool:
        """Whether it has fired or failed."""
        return self.task.done()

    async def payload(self) -> Any:
        """What it fires with."""
        async with asyncio.timeout(30):
            return await self.task


@asynccontextmanager
async def waiting(*triggers: BaseTrigger) -> AsyncIterator[list[Waiting]]:
    """Triggers that run inside the block, cancelled at its end; nothing of theirs is left then."""
    before = asyncio.all_tasks()
    them = [Waiting(trigger) for trigger in triggers]
    try:
        yield them
    finally:
        for one in them:
            one.task.cancel()
        await asyncio.wait([one.task for one in them])
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, left


def fired(trigger: BaseTrigger, cause: Callable[[], Awaitable[None]] | None = None) -> Any:
    """The payload of a trigger's event, which ``cause`` brings about."""

    async def main() -> Any:
        async with waiting(trigger) as (one,):
            if cause is not None:
                await cause()
            return await one.payload()

    return asyncio.run(main())


async def until(look: Callable[[], object]) -> None:
    """Wait until ``look()`` is true."""
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110 - other processes make it so
            await asyncio.sleep(0.01)


def descriptors() -> int:
    """How many files this process has open, less what earlier tests have dropped unclosed."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
