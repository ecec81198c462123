"""The life of a watcher's trigger in the runner: event after event, begun anew when it fails (D13).

One event is under way at a time: ``run()`` goes on behind its ``yield`` when the event is in the
database. So a trigger cannot outrun the database, its events keep their order, and what follows
the ``yield`` may acknowledge to others what it took from them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from roost.dag.event_trigger import BaseEventTrigger
from roost.dag.trigger import BaseTaskEndEvent, BaseTrigger, TriggerEvent
from roost.exceptions import RoostException, ValueNotStorable
from roost.support import typedjson
from roost.support.labels import watcher_label
from roost.support.trigger_wire import TriggerSpec
from roost.triggerer.case import (
    CLEANUP_S,
    CURRENT,
    Case,
    ResolveFn,
    build,
    clean,
    events_of,
    explain,
)
from roost.triggerer.fanout import Feed, Streams
from roost.triggerer.messages import Sighting

__all__ = ["Watch", "watch"]

log = logging.getLogger(__name__)

# A run() that ended after events is begun anew after so long, one that failed after twice as long
# each time; all of it jittered, so that many do not come back at once.
AGAIN_S = 1.0
_LONGEST_S = 60.0
_MOST_KEY = 200
_MOST_TROUBLE = 1_000

SendFn = Callable[[Sighting], None]
SayFn = Callable[[Case, str], None]


class Watch(Case):
    """A watcher's trigger that the runner holds."""

    __slots__ = ("arguments", "awaited", "feed", "number", "reading", "watcher")

    of_task = False

    def __init__(self, spec: TriggerSpec, labels: dict[str, str]) -> None:
        super().__init__(spec, labels)
        self.watcher = spec.watcher
        self.arguments = bytes(spec.kwargs)  # it is made anew from them each time
        # Under one claim several runners may have it, one after the other: numbers go up anyway.
        self.number = time.time_ns() // 1000
        self.awaited: asyncio.Future[bool] | None = None  # for the event under way
        self.feed: Feed | None = None  # of a stream that it shares (D14)
        self.reading = False

    @property
    def label(self) -> str:
        """Which watcher it is, in words."""
        return watcher_label(self.watcher)

    def stop_reading(self) -> None:
        """Its feed has failed: whatever its filter is at ends."""
        if self.reading and self.task is not None:
            self.task.cancel()

    def kept(self, number: int, stored: bool) -> None:
        """The event of this number is in the database, or was refused."""
        if self.awaited is not None and number == self.number and not self.awaited.done():
            self.awaited.set_result(stored)


async def watch(
    case: Watch, resolve: ResolveFn, streams: Streams, send: SendFn, say: SayFn
) -> None:
    """Run a watcher's trigger until it is cancelled. Never raises.

    Args:
        case: the trigger.
        resolve: finds its class.
        streams: those that watchers share.
        send: takes what it has seen, and its troubles.
        say: takes what a log is to have of a trouble.
    """
    case.started = True
    CURRENT.set(case.trigger_id)
    await _watch(case, resolve, streams, send, say)
    if case.feed is not None:
        case.cleaning = True
        case.feed.close(wanted=not case.over)
        await case.feed.stream.rest()


async def _watch(
    case: Watch, resolve: ResolveFn, streams: Streams, send: SendFn, say: SayFn
) -> None:
    failures = 0
    while not case.leaving:
        seen = 0
        trigger: BaseTrigger | None = None
        events: AsyncIterator[object] | None = None
        error: BaseException | None = None
        try:
            trigger = await _made(case, resolve)
            events = _events(case, trigger, streams)
            case.reading = case.feed is not None
            async for event in events:
                await _keep(case, trigger, event, send)
                seen += 1
                failures = 0
            if not seen:
                raise RoostException(f"{type(trigger).__name__} ended without an event")
        except GeneratorExit:
            raise  # the interpreter takes the coroutine down: nothing may be awaited any more
        except BaseException as raised:  # SystemExit and a stray CancelledError are its own
            error = raised
        case.reading = False
        if case.feed is not None:
            error = case.feed.failure or error
        case.cleaning = True
        case.trigger = None
        await clean(case, trigger, events)
        case.cleaning = False
        if case.leaving:
            return
        pause = AGAIN_S * random.uniform(0.5, 1.5)  # noqa: S311 - to spread, not to hide
        if error is not None:
            failures += 1
            pause *= min(2.0 ** min(failures, 30), _LONGEST_S)
            _tell(case, error, pause, send, say)
        if not await _rest(case, pause):
            return


def _events(case: Watch, trigger: BaseEventTrigger, streams: Streams) -> AsyncIterator[object]:
    """What its ``run()`` yields, or what it makes of a stream that it shares."""
    kwargs: Any = typedjson.decode(case.arguments)
    if case.feed is not None and case.feed.over:
        case.feed.close(wanted=True)
        case.feed = None
    if case.feed is None:
        case.feed = streams.feed(case, trigger, kwargs)
    if case.feed is None:
        return events_of(trigger)
    case.feed.again()
    return type(trigger).filter_shared_stream(case.feed, kwargs)


async def _made(case: Watch, resolve: ResolveFn) -> BaseEventTrigger:
    cls = await resolve(case)
    case.kwargs = case.arguments
    trigger = build(cls, case)
    trigger.trigger_id = case.trigger_id
    if not isinstance(trigger, BaseEventTrigger):
        raise RoostException(f"{case.classpath} is no BaseEventTrigger: no watcher can run it")
    case.trigger = trigger
    return trigger


async def _keep(case: Watch, trigger: BaseTrigger, event: object, send: SendFn) -> None:
    """Have an event stored, and go on when it is.

    Raises:
        RoostException: it cannot be stored, or the claim is another triggerer's by now.
    """
    sighting = _sighting(event, type(trigger).__name__, case)
    case.number = sighting.number
    case.awaited = asyncio.get_running_loop().create_future()
    send(sighting)
    try:
        stored = await case.awaited
    finally:
        case.awaited = None
    if not stored:
        raise RoostException("its last event was not stored")
    if type(trigger).on_stored is not BaseTrigger.on_stored:
        async with asyncio.timeout(CLEANUP_S):
            await trigger.on_stored()


def _sighting(event: object, name: str, case: Watch) -> Sighting:
    if not isinstance(event, TriggerEvent):
        raise RoostException(
            f"{name} yielded {type(event).__name__}; yield TriggerEvent(payload) instead"
        )
    if isinstance(event, BaseTaskEndEvent):
        raise RoostException(f"{name} yielded {type(event).__name__}: a watcher has no task")
    key = event.key
    if key is not None and (
        not isinstance(key, str) or not 0 < len(key) <= _MOST_KEY or "\0" in key
    ):
        raise RoostException(f"{name} yielded an event with the key {str(key)[:40]!r}: a key is "
                             f"a text of 1 to {_MOST_KEY} characters")  # fmt: skip
    payload: Any = event.payload
    if not isinstance(payload, dict):
        payload = {} if payload is None else {"payload": payload}
    try:
        extra = msgspec.Raw(typedjson.encode(payload, name="payload"))
    except ValueNotStorable as error:
        raise RoostException(f"{name} yielded an event that cannot be stored: {error}") from None
    return Sighting(case.trigger_id, case.epoch, case.number + 1, extra, key)


def _tell(case: Watch, error: BaseException, pause: float, send: SendFn, say: SayFn) -> None:
    text = explain(error, case.secrets)
    say(case, f"{case.classpath} failed, it is begun anew in {pause:.1f} s: {text}")
    last = text.rstrip().rpartition("\n")[2][:_MOST_TROUBLE]
    trouble = f"failed, begun anew after {pause:.1f} s: {last}"
    case.number += 1
    send(Sighting(case.trigger_id, case.epoch, case.number, trouble=trouble))


async def _rest(case: Watch, pause: float) -> bool:
    """Sleep before the next time; False when it was cancelled meanwhile."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    try:
        await asyncio.sleep(pause)
    except asyncio.CancelledError:
        return not case.leaving  # else something that it had started cancelled it
    return True
