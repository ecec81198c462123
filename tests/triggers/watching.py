"""Triggers of watchers, run as a runner runs them, with the test in place of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from roost.dag.event_trigger import BaseEventTrigger
from roost.dag.registry import resolve_trigger
from roost.dag.trigger import BaseTrigger, source_of
from roost.support import typedjson
from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.case import Case
from roost.triggerer.fanout import Streams
from roost.triggerer.messages import Sighting
from roost.triggerer.watching import Watch, watch
from tests.triggers.case import remade, until

__all__ = ["Watching", "watching"]


class Watching:
    """A watcher's trigger that runs in the test's loop.

    Args:
        number: the trigger's id.
        trigger: what it was declared with.
        streams: those that it may share.
        stores: each event is stored at once; else the test says so.
    """

    def __init__(
        self, number: int, trigger: BaseEventTrigger, streams: Streams, *, stores: bool
    ) -> None:
        remade(trigger)
        classpath, kwargs = trigger.serialize()
        self.told: list[Sighting] = []
        self._stores = stores
        self.case = Watch(
            TriggerSpec(
                number, 1, classpath, source_of(type(trigger)),
                msgspec.Raw(typedjson.encode(kwargs)), "", "", "", "", "", -1, 0, watcher="w",
            ),
            {},
        )  # fmt: skip
        self.case.task = asyncio.create_task(
            watch(self.case, self._resolve, streams, self._take, lambda case, text: None)
        )

    async def _resolve(self, case: Case) -> type[BaseTrigger]:
        return resolve_trigger(case.source, [], None)

    def _take(self, sighting: Sighting) -> None:
        self.told.append(sighting)
        if self._stores and sighting.trouble is None:
            asyncio.get_running_loop().call_soon(self.case.kept, sighting.number, True)

    def store(self) -> None:
        """The event under way is in the database."""
        self.case.kept(self.told[-1].number, True)

    @property
    def extras(self) -> list[Any]:
        """What its events hold."""
        assert [one.trouble for one in self.told if one.trouble] == []
        return [typedjson.decode(one.extra) for one in self.told]

    async def has(self, count: int) -> list[Any]:
        """Wait for so many events; gives what they hold."""
        await until(lambda: len(self.told) >= count)
        return self.extras


def _stop(case: Any) -> None:
    case.stop_reading()


@asynccontextmanager
async def watching(
    *triggers: BaseEventTrigger, stores: bool = True
) -> AsyncIterator[tuple[list[Watching], Callable[[Watching], Any]]]:
    """Watchers that run inside the block, and how to end one of them before its end."""
    streams = Streams(_stop, lambda told: None)
    before = asyncio.all_tasks()
    them = [
        Watching(number, trigger, streams, stores=stores)
        for number, trigger in enumerate(triggers, 1)
    ]

    async def leave(one: Watching) -> None:
        one.case.leaving = True
        task = one.case.task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])

    try:
        yield them, leave
    finally:
        for one in them:
            await leave(one)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, left
