"""Events from outside and the scheduler: whatever races them, one thing comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from roost.models.engine import read
from roost.models.queries import awaited, external
from roost.models.queries.external import NewEvent
from roost.support.clock import SECOND
from tests.scheduler.hands import OutcomeOf, World, deferred, ok, task


def waits(key: str, timeout_s: float | None = None) -> OutcomeOf:
    """The task defers to an ExternalTrigger."""
    return deferred(
        timeout_s=timeout_s,
        lane="external",
        key=key,
        source="roost.triggers.external:ExternalTrigger",
    )


def send(world: World, key: str, payload: str = "1") -> None:
    event = NewEvent(key, payload, "test", 3600 * SECOND)
    world.transact(lambda tx: external.send(tx, event))


def match(world: World) -> int:
    return world.transact(lambda tx: external.match(tx, lambda _id, text: text)).woken


def taken(world: World) -> list[int]:
    """How many each event that was taken has woken."""
    rows = world.fetch("SELECT woken FROM external_event WHERE taken_at IS NOT NULL")
    return [row.woken for row in rows]


@pytest.fixture
def waiting(world: World) -> World:
    """A task ``wait`` that has deferred for a minute at most."""
    world.start(task("wait", retries=1))
    world.work(wait=waits("a", timeout_s=60))
    assert world.states() == {"wait": "deferred"}
    return world


def event_of(world: World) -> Any:
    (claimed,) = world.claim()
    found = msgspec.json.decode(claimed.next_kwargs or "{}").get("event")
    world.end(claimed, ok())
    world.turns()
    return found


def test_such_waits_are_no_work_of_the_scheduler(waiting: World) -> None:
    """No look, no sweep and no end of a run finds them."""
    report = waiting.turn()
    assert report.sweep_at is None
    assert not waiting.schedulers[0].has_work()
    with read(waiting.engine) as tx:
        assert awaited.waiting_after(tx, 0, 10) == []
        assert awaited.waiting_for(tx, ["a"], [1]) == []


def test_the_event_is_the_resumed_tasks(waiting: World) -> None:
    """N4, D3."""
    send(waiting, "a", '{"n":1}')
    assert match(waiting) == 1
    waiting.turns()
    assert event_of(waiting) == {"n": 1}
    assert waiting.states() == {"wait": "success"}
    waiting.check()


def test_d6_an_event_in_time_wins_over_the_time_out(waiting: World) -> None:
    """Both are there when the scheduler looks."""
    send(waiting, "a")
    assert match(waiting) == 1
    waiting.clock.advance(61)
    waiting.turns()
    assert event_of(waiting) == 1
    assert waiting.states() == {"wait": "success"}
    waiting.check()


def test_d6_an_event_after_the_time_out_is_the_next_trys(waiting: World) -> None:
    """It wakes nobody, so it is kept; the next try defers again and takes it."""
    waiting.clock.advance(61)
    send(waiting, "a", "2")
    waiting.turns()
    assert match(waiting) == 0
    assert taken(waiting) == []
    waiting.clock.advance(400)
    waiting.turns()
    waiting.work(wait=waits("a"))
    assert match(waiting) == 1
    waiting.turns()
    assert event_of(waiting) == 2
    assert taken(waiting) == [1]
    waiting.check()


@pytest.mark.parametrize(
    "edit", [lambda w: w.clear("wait"), lambda w: w.mark("success", "wait")], ids=["clear", "mark"]
)
@pytest.mark.parametrize("settled", [False, True])
def test_an_edit_before_the_match_keeps_the_event(
    waiting: World, edit: Callable[[World], object], settled: bool
) -> None:
    send(waiting, "a")
    edit(waiting)
    if settled:
        waiting.turns()
    assert match(waiting) == 0
    assert taken(waiting) == []
    waiting.turns()
    waiting.check()


@pytest.mark.parametrize(
    ("edit", "state"),
    [(lambda w: w.clear("wait"), "queued"), (lambda w: w.mark("failed", "wait"), "failed")],
    ids=["clear", "mark"],
)
def test_an_edit_after_the_match_undoes_the_wake(
    waiting: World, edit: Callable[[World], object], state: str
) -> None:
    """The task had its event; what a user says of it afterwards holds, as at any later moment."""
    send(waiting, "a")
    assert match(waiting) == 1
    edit(waiting)
    waiting.turns()
    assert waiting.states() == {"wait": state}
    assert taken(waiting) == [1]
    assert waiting.fetch("SELECT id FROM trigger_event") == []
    waiting.check()
