"""Tasks that end in their trigger, without a worker, as if they had ended themselves (D11)."""

from __future__ import annotations

import pytest

from roost.support.trigger_wire import EndKind
from tests.scheduler.hands import World, deferred, ok, task

_XCOMS = '[{"key": "rows", "value": 42, "length": null}]'


def xcoms(world: World) -> dict[str, str]:
    return {row.key: row.value for row in world.fetch("SELECT key, value FROM xcom")}


@pytest.mark.parametrize(
    ("kind", "state", "move", "after"),
    [
        ("end_success", "success", "succeed", "success"),
        ("end_skipped", "skipped", "end_skipped", "skipped"),
        ("end_failed", "failed", "fail", "upstream_failed"),
    ],
)
def test_an_event_ends_the_task_without_a_worker_d11(
    world: World, kind: EndKind, state: str, move: str, after: str
) -> None:
    run = world.start(task("a", "b"), task("b"))
    world.work(a=deferred(next_method=None))
    world.fire("a", kind=kind, xcoms=_XCOMS, error="the job says so")
    world.turns()
    world.work(b=ok())
    assert world.states(run) == {"a": state, "b": after}
    assert xcoms(world) == {"rows": "42"}
    assert world.log("a")[-2:] == ["defer", move]
    assert "the job says so" in world.reasons("succeed", "fail", "end_skipped")
    assert world.fetch("SELECT * FROM trigger") == []
    world.check()


def test_a_failure_by_event_is_retried_and_leaves_nothing_d11(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0))
    world.work(a=deferred())
    world.fire("a", kind="end_failed", xcoms=_XCOMS)
    world.turns()
    assert xcoms(world) == {}
    assert world.row("a").try_number == 2
    assert world.work(a=deferred()) == ["a"]
    world.fire("a", kind="end_failed", xcoms=_XCOMS)
    world.turns()
    assert world.states() == {"a": "failed"}
    assert xcoms(world) == {"rows": "42"}
    world.check()


def test_what_it_held_of_a_pool_is_given_back_d11_h5(world: World) -> None:
    world.pool("p", 1, deferred_percent=100)
    world.start(task("a", pool="p", priority_weight=2), task("b", pool="p"))
    world.work(a=deferred())
    assert world.used("p") == 1
    world.fire("a", kind="end_success")
    world.turns()
    assert world.work() == ["b"]
    assert world.used("p") == 0


@pytest.mark.parametrize("kind", ["end_success", "end_failed", "end_skipped", "fired"])
def test_of_an_event_and_a_users_edit_the_first_wins_d11(world: World, kind: EndKind) -> None:
    """The event is stored, but no turn has settled it when the user edits the task."""
    world.start(task("a"), task("b"))
    world.work(a=deferred(), b=deferred())
    for name in "ab":
        world.fire(name, kind=kind, xcoms=_XCOMS)
    world.clear("a")
    world.mark("success", "b")
    world.turns()
    assert world.states() == {"a": "queued", "b": "success"}
    assert xcoms(world) == {}
    assert [row.id for row in world.fetch("SELECT id FROM trigger_event")] == []
    world.check()


def test_an_event_with_nowhere_to_come_back_to_fails_the_task_d1(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred(next_method=None))
    world.fire("a", {"rows": 1})
    world.turns()
    assert world.states() == {"a": "failed"}
    (reason,) = world.reasons("fail")
    assert "named no method to come back to" in (reason or "")


def test_outlets_have_their_events_d11_h16(world: World) -> None:
    world.start(task("a", outlets=["s3://x"]))
    world.work(a=deferred())
    world.fire("a", kind="end_success")
    world.turns()
    (event,) = world.fetch("SELECT uri, task_id FROM asset_event")
    assert tuple(event) == ("s3://x", "a")
