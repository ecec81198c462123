"""Shared streams: one poll of a broker or a server feeds many watchers of this runner (D14).

A stream is opened for the first watcher with its key and closed when the last one leaves. Each
item goes into the queue of every watcher that is there; a watcher is done with an item when its
filter asks for the next one, which it does when the events that it made of it are stored. An item
that can be acknowledged is so when all are done with it, in the order in which the items came.
Who does not keep up - too many items queued, or too long at one - fails alone: what it was not
done with is given back, for the broker to bring it again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

from roost.dag.event_trigger import BaseEventTrigger, StreamItem
from roost.exceptions import RoostException
from roost.triggerer.case import CLEANUP_S, CURRENT, Case, explain
from roost.triggerer.messages import Together
from roost.triggerer.steps import Steps

__all__ = ["Feed", "Streams"]

log = logging.getLogger(__name__)

MOST_QUEUED = 1024
ACK_TIMEOUT_S = 300.0


class _Delivery:
    """An item, and which feeds are not done with it."""

    __slots__ = ("item", "refused", "waiting")

    def __init__(self, item: StreamItem) -> None:
        self.item = item
        self.waiting: set[Feed] = set()
        self.refused = False

    def done(self, feed: Feed, *, refused: bool) -> None:
        if feed in self.waiting:
            self.waiting.discard(feed)
            self.refused |= refused


class Feed:
    """What one watcher has of a stream: the values of its items, one after the other."""

    def __init__(self, stream: _Stream, case: Case, fail: Callable[[Case], None]) -> None:
        self.stream = stream
        self.case = case
        self._fail = fail
        self._queue: deque[_Delivery] = deque()  # the first is the one that it is at
        self._at = False
        self._more = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.failure: RoostException | None = None
        self._ended: BaseException | None = None  # the stream has, after what is queued

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._settle()
        while not self._queue:
            if self.failure is not None:
                raise self.failure
            if self._ended is not None:
                raise RoostException(f"its shared stream ended: {explain(self._ended)}")
            self._more.clear()
            await self._more.wait()
        self._at = True
        if self._timer is None:  # begun anew: the time goes on
            most = self.stream.ack_timeout_s
            self._timer = asyncio.get_running_loop().call_later(most, self._too_long)
        return self._queue[0].item.value

    def again(self) -> None:
        """The filter begins anew, with the item that it was at."""
        self._at = False

    @property
    def queued(self) -> int:
        """How many items it is not done with."""
        return len(self._queue)

    @property
    def over(self) -> bool:
        """Nothing comes any more: the watcher needs another feed."""
        return self.failure is not None or (self._ended is not None and not self._queue)

    def put(self, delivery: _Delivery) -> None:
        """One more item."""
        if len(self._queue) >= self.stream.most_queued:
            delivery.refused = True
            self._give_up(f"more than {self.stream.most_queued} items of its shared stream wait")
            return
        delivery.waiting.add(self)
        self._queue.append(delivery)
        self._more.set()

    def end(self, error: BaseException) -> None:
        """The stream is gone. What could be acknowledged comes again; the rest is all there is."""
        self._ended = error
        left = [one for one in self._queue if one.item.ack is None]
        at = self._queue[0] if self._at and self._queue else None
        if at is not None and at not in left:
            left.insert(0, at)
        self._queue = deque(left)
        self._more.set()

    def close(self, *, wanted: bool) -> None:
        """The watcher leaves; ``wanted``: what it was not done with is to come again."""
        self._stop_timer()
        self._at = False
        queue, self._queue = self._queue, deque()
        for delivery in queue:
            delivery.done(self, refused=wanted)
        if self.stream.feeds.get(self.case.trigger_id) is self:
            del self.stream.feeds[self.case.trigger_id]
            self.stream.changed()

    def _settle(self) -> None:
        if self._at and self._queue:
            self._stop_timer()
            self._queue.popleft().done(self, refused=False)
            self.stream.flush()
        self._at = False

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_long(self) -> None:
        most = self.stream.ack_timeout_s
        self._give_up(f"an item of its shared stream was not dealt with for {most:g} s")

    def _give_up(self, why: str) -> None:
        self.failure = RoostException(why)
        self.close(wanted=True)
        self._more.set()
        self._fail(self.case)


class _Stream:
    """One stream that is open, and its feeds by trigger."""

    def __init__(
        self,
        open_: Callable[[], AsyncIterator[Any]],
        gone: Callable[[_Stream], None],
        together: Callable[[Together], None],
        most_queued: int,
        ack_timeout_s: float,
    ) -> None:
        self.feeds: dict[int, Feed] = {}
        self.most_queued = most_queued
        self.ack_timeout_s = ack_timeout_s
        self._open = open_
        self._gone = gone
        self._together = together
        self._unsettled: deque[_Delivery] = deque()
        self._settled = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._broken: Exception | None = None  # why it cannot acknowledge
        self._leader = 0
        self._steps: list[Steps[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def join(self, feed: Feed) -> None:
        """One more watcher; the first has the stream opened."""
        self.feeds[feed.case.trigger_id] = feed
        self.changed()
        if not self._tasks:
            for coroutine in (self._pump(), self._acknowledge()):
                steps = Steps(coroutine, self._leader)
                self._steps.append(steps)
                # Nobody's in particular: a context without a trigger, set below to the leader's.
                create = asyncio.get_running_loop().create_task
                name = f"trigger-{self._leader}"
                self._tasks.append(contextvars.Context().run(create, steps, name=name))

    def changed(self) -> None:
        """Watchers came or left: what the stream does is noted as the work of one, and all's."""
        if not self.feeds:
            self._gone(self)
            self._closing = True
            self.flush()  # what all are done with first: the end of the stream hangs up
            if self._tasks and self._tasks[1].done():
                self._tasks[0].cancel()
            return
        if self._leader not in self.feeds:
            self._leader = next(iter(self.feeds))
            for steps, task in zip(self._steps, self._tasks, strict=True):
                steps.note_as(self._leader)
                task.set_name(f"trigger-{self._leader}")
        self._together(Together(self._leader, list(self.feeds)))
        self.flush()

    def flush(self) -> None:
        """Somebody is done with an item."""
        self._settled.set()
        self._room.set()

    async def rest(self) -> None:
        """Wait for the end of a stream that nobody needs any more."""
        if not self.feeds and self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEANUP_S)

    async def _pump(self) -> None:
        error: BaseException = RoostException("open_shared_stream() has ended")
        items: Any = None
        try:
            CURRENT.set(self._leader)
            items = self._open()
            while True:
                CURRENT.set(self._leader)
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    break
                self._hand_out(item if isinstance(item, StreamItem) else StreamItem(item))
                await self._wait_for_room()
        except GeneratorExit:
            raise
        except BaseException as raised:
            error = self._broken or raised
        for feed in list(self.feeds.values()):
            feed.end(error)
        self._gone(self)
        await self._close(items)

    async def _wait_for_room(self) -> None:
        """Who is slower than others fails; where all are slow, the stream waits for the fastest."""
        half = self.most_queued // 2
        # Once it is closing, what is given back must not be taken again.
        while self._closing or (
            self.feeds and min(feed.queued for feed in self.feeds.values()) >= half
        ):
            self._room.clear()
            await self._room.wait()

    def _hand_out(self, item: StreamItem) -> None:
        delivery = _Delivery(item)
        for feed in list(self.feeds.values()):
            feed.put(delivery)
        if item.ack is not None or item.nack is not None:
            # Nobody has it: who was to have it has just failed.
            delivery.refused |= not delivery.waiting
            self._unsettled.append(delivery)
            self.flush()

    async def _close(self, items: Any) -> None:
        """Acknowledge what all are done with, then let the stream clean up."""
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        self._closing = True
        self._settled.set()
        acknowledging = self._tasks[1]
        await asyncio.wait([acknowledging], timeout=CLEANUP_S)
        acknowledging.cancel()
        try:
            async with asyncio.timeout(CLEANUP_S):
                if (close := getattr(items, "aclose", None)) is not None:
                    await close()
        except GeneratorExit:
            raise
        except BaseException as error:
            log.warning("a shared stream did not end well: %s", explain(error))

    async def _acknowledge(self) -> None:
        while True:
            await self._settled.wait()
            self._settled.clear()
            CURRENT.set(self._leader)
            try:
                await self._acknowledge_some()
            except Exception as error:
                log.warning("acknowledging to a shared stream failed: %s", explain(error))
                self._broken = error
                self._tasks[0].cancel()  # of no use any more: it is opened anew
                return
            if self._closing:
                self._tasks[0].cancel()
                return

    async def _acknowledge_some(self) -> None:
        """Acknowledge what all are done with, in order; give back what somebody was not."""
        while self._unsettled and not self._unsettled[0].waiting:
            delivery = self._unsettled.popleft()
            call = delivery.item.nack if delivery.refused else delivery.item.ack
            if call is not None:
                async with asyncio.timeout(CLEANUP_S):
                    await call()


class Streams:
    """The shared streams of one runner.

    Args:
        fail: ends what the filter of a watcher is at, whose feed has failed.
        together: told which watchers a stream feeds, whenever that changes.
    """

    def __init__(
        self,
        fail: Callable[[Case], None],
        together: Callable[[Together], None],
        most_queued: int = MOST_QUEUED,
        ack_timeout_s: float = ACK_TIMEOUT_S,
    ) -> None:
        self._fail = fail
        self._together = together
        self.most_queued = most_queued
        self.ack_timeout_s = ack_timeout_s
        self._open: dict[Hashable, _Stream] = {}

    def feed(self, case: Case, trigger: BaseEventTrigger, kwargs: dict[str, Any]) -> Feed | None:
        """A watcher's feed of the stream that its trigger shares; None: it shares none.

        Raises:
            Exception: whatever ``shared_stream_key()`` raises.
        """
        key = trigger.shared_stream_key()
        if key is None:
            return None
        cls = type(trigger)
        # Whoever inherits it shares it; another version of the code is another function.
        place = (getattr(cls.open_shared_stream, "__func__", cls), key)
        stream = self._open.get(place)
        if stream is None:
            stream = self._open[place] = _Stream(
                lambda: cls.open_shared_stream(kwargs),
                lambda gone: self._forget(place, gone),
                self._together,
                self.most_queued,
                self.ack_timeout_s,
            )
        feed = Feed(stream, case, self._fail)
        stream.join(feed)
        return feed

    def _forget(self, place: Hashable, stream: _Stream) -> None:
        if self._open.get(place) is stream:
            del self._open[place]
