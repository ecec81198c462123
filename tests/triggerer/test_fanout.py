"""Shared streams: one poll feeds many watchers; nobody loses an event or has it twice (D14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.exceptions import RoostException
from roost.triggerer.fanout import Feed, Streams
from roost.triggers import BaseEventTrigger, StreamItem, TriggerEvent
from tests.triggerer.virtual_loop import run_virtually


class Broker:
    """Brings numbers, and notes what it hears of them."""

    def __init__(self, pauses: list[float], *, acks: bool) -> None:
        self.pauses = pauses
        self.acks = acks
        self.opened = 0
        self.closed = 0
        self.heard: list[tuple[str, int]] = []

    async def items(self) -> AsyncIterator[Any]:
        self.opened += 1
        try:
            for number, pause in enumerate(self.pauses):
                await asyncio.sleep(pause)
                yield self._item(number) if self.acks else number
            await asyncio.sleep(1e6)
        finally:
            self.closed += 1

    def _item(self, number: int) -> StreamItem:
        async def hear(word: str) -> None:
            await asyncio.sleep(0.001)
            self.heard.append((word, number))

        return StreamItem(number, lambda: hear("ack"), lambda: hear("nack"))


class Shares(BaseEventTrigger):
    broker: Broker

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("Shares", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise AssertionError("it shares a stream")
        yield

    def shared_stream_key(self) -> str:
        return "broker"

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        return cls.broker.items()


class Case:
    """As much of a watcher as a feed needs."""

    def __init__(self, number: int) -> None:
        self.trigger_id = number
        self.task: asyncio.Task[None] | None = None
        self.seen: list[int] = []
        self.stored: list[int] = []
        self.failures: list[str] = []


def stop(case: Any) -> None:
    case.task.cancel()


async def read(feed: Feed, case: Case, pauses: list[float], fails_at: set[int]) -> None:
    """A filter that takes its time for each item, and fails once at some."""
    while not feed.over:
        feed.again()
        try:
            async for number in feed:
                case.seen.append(number)
                if number in fails_at:
                    fails_at.discard(number)
                    raise ValueError("not this time")
                await asyncio.sleep(pauses[number % len(pauses)])
                case.stored.append(number)
        except ValueError:
            await asyncio.sleep(2)
        except RoostException as error:
            case.failures.append(str(error))
        except asyncio.CancelledError:
            if feed.failure is None:
                raise
            case.failures.append(str(feed.failure))


PAUSE = st.sampled_from([0.0, 0.01, 0.5, 3.0])


@given(
    pauses=st.lists(PAUSE, min_size=1, max_size=30),
    readers=st.lists(
        st.tuples(st.lists(PAUSE, min_size=1, max_size=4), st.sets(st.integers(0, 29), max_size=3)),
        min_size=1,
        max_size=5,
    ),
    acks=st.booleans(),
)
def test_each_watcher_has_each_item_once_and_in_order(
    pauses: list[float], readers: list[tuple[list[float], set[int]]], acks: bool
) -> None:
    """D14: slow or failing, alone or many; acknowledged in order, when all are done with it."""
    broker = Broker(pauses, acks=acks)
    kind = type("Shares", (Shares,), {"broker": broker})
    cases = [Case(number) for number in range(1, len(readers) + 1)]

    async def run() -> None:
        streams = Streams(stop, lambda told: None)
        tasks = []
        for case, (slow, fails_at) in zip(cases, readers, strict=True):
            feed = streams.feed(case, kind(), {})  # type: ignore[arg-type]
            assert feed is not None
            case.task = asyncio.ensure_future(read(feed, case, slow, set(fails_at)))
            tasks.append((case.task, feed))
        while any(len(case.stored) < len(pauses) for case in cases):
            await asyncio.sleep(1)
            for number in [number for word, number in broker.heard if word == "ack"]:
                assert all(number in case.stored for case in cases)
        await asyncio.sleep(10)
        for task, feed in tasks:
            task.cancel()
            feed.close(wanted=True)
            await feed.stream.rest()

    run_virtually(run())
    numbers = list(range(len(pauses)))
    assert [case.stored for case in cases] == [numbers] * len(cases)
    for case, (_, fails_at) in zip(cases, readers, strict=True):
        again = sorted(numbers + [number for number in fails_at if number < len(pauses)])
        assert case.seen == again and case.failures == []
    assert broker.heard == ([("ack", number) for number in numbers] if acks else [])
    assert (broker.opened, broker.closed) == (1, 1)


def drive(
    pauses: list[float], slow: float, fastest: float = 0.0, **limits: Any
) -> tuple[Broker, Case, Case]:
    """A watcher that keeps up, and one that takes ``slow`` seconds for each item."""
    broker = Broker(pauses, acks=True)
    kind = type("Shares", (Shares,), {"broker": broker})
    fast, other = Case(1), Case(2)

    async def run() -> None:
        streams = Streams(stop, lambda told: None, **limits)
        feeds = []
        for case, pause in ((fast, fastest), (other, slow)):
            feed = streams.feed(case, kind(), {})  # type: ignore[arg-type]
            assert feed is not None
            feeds.append(feed)
            case.task = asyncio.ensure_future(read(feed, case, [pause], set()))
        while len(fast.stored) < len(pauses):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1)
        await asyncio.sleep(1000)
        for case, feed in zip((fast, other), feeds, strict=True):
            assert case.task is not None
            case.task.cancel()
            feed.close(wanted=True)
        await feeds[0].stream.rest()

    run_virtually(run())
    return broker, fast, other


def test_a_slow_watcher_fails_alone() -> None:
    """D14: with more than so many items queued; what it was not done with is given back."""
    broker, fast, slow = drive([0.1] * 20, 1e5, most_queued=8, ack_timeout_s=1e6)
    assert fast.stored == list(range(20)) and fast.failures == []
    assert slow.failures == ["more than 8 items of its shared stream wait"] and slow.stored == []
    given_back = [("nack", number) for number in range(9)]
    assert broker.heard == given_back + [("ack", number) for number in range(9, 20)]


def test_a_watcher_that_takes_too_long_for_an_item_fails_alone() -> None:
    """D14: 300 s for each, by default; the item is given back, the others are acknowledged."""
    broker, fast, slow = drive([0.1] * 3, 1e5)
    assert fast.stored == [0, 1, 2]
    assert slow.failures == ["an item of its shared stream was not dealt with for 300 s"]
    assert broker.heard == [("nack", 0), ("nack", 1), ("nack", 2)]


def test_a_stream_waits_where_all_are_slow() -> None:
    """D14: nobody fails for what none can do faster."""
    broker, fast, _ = drive([0.0] * 100, 0.5, 0.5, most_queued=8)
    assert len(fast.stored) == 100 and fast.failures == []
    assert [word for word, _ in broker.heard] == ["ack"] * 100


@pytest.mark.parametrize("acks", [False, True])
def test_the_end_of_a_stream_is_told_to_all(acks: bool) -> None:
    """D14: after what is queued, unless the broker brings that again; then it is opened anew."""

    class Ends(Broker):
        async def items(self) -> AsyncIterator[Any]:
            self.opened += 1
            for number in range(3):
                yield self._item(number) if acks else number
            raise OSError("the broker is gone")

    broker = Ends([], acks=acks)
    kind = type("Shares", (Shares,), {"broker": broker})
    case = Case(1)

    async def run() -> None:
        streams = Streams(stop, lambda told: None)
        feed = streams.feed(case, kind(), {})  # type: ignore[arg-type]
        assert feed is not None
        await read(feed, case, [1.0], set())
        assert feed.over
        again = streams.feed(case, kind(), {})  # type: ignore[arg-type]
        assert again is not None and again.stream is not feed.stream
        await asyncio.sleep(1)

    run_virtually(run())
    assert "OSError: the broker is gone" in case.failures[0]
    assert case.stored == ([] if acks else [0, 1, 2]) and broker.opened == 2
