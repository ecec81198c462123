"""Tasks that start in their trigger: deferred without a worker, under every limit (D12)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.dag.model import SerializedStart, SerializedTask
from roost.support.clock import SECOND
from tests.scheduler.hands import World, failed, ok, task


def waits(task_id: str, downstream: str = "", *, start: Any = None, **knobs: Any) -> SerializedTask:
    """A task that starts in a trigger."""
    begins = SerializedStart(
        **{
            "classpath": "hands.Trigger",
            "source": "hands:Trigger",
            "kwargs": {"path": "/data/{{ ds }}"},
            "next_method": "execute_complete",
            "next_kwargs": {"a": 1},
            **(start or {}),
        }
    )
    return task(task_id, downstream, start=begins, **knobs)


def test_the_first_stage_takes_no_worker_d12(world: World) -> None:
    run = world.start(waits("a", "b", queue="q"), task("b"))
    assert world.states(run) == {"a": "deferred", "b": "none"}
    assert world.log("a") == ["schedule", "start_deferred"]
    assert world.claim() == []
    (row,) = world.fetch("SELECT * FROM trigger")
    assert (row.lane, row.kwargs, row.next_method, row.queue, row.classpath) == (
        "poll", "{}", "execute_complete", "q", "hands.Trigger",
    )  # fmt: skip
    assert msgspec.json.decode(row.start) == {
        "kwargs": {"path": "/data/{{ ds }}"}, "operator": "Hands", "max_tries": 1,
    }  # fmt: skip
    assert world.row("a").trigger_id == row.id
    assert world.row("a").start_date == world.clock.now
    world.fire("a", {"rows": 1})
    world.turns()
    (claimed,) = world.claim(queues=["q"])
    assert claimed.next_method == "execute_complete"
    assert msgspec.json.decode(claimed.next_kwargs or "") == {"a": 1, "event": {"rows": 1}}
    world.end(claimed.id, ok())
    world.turns()
    assert world.states(run)["a"] == "success"
    world.check()


def test_it_may_end_in_its_trigger_and_never_see_a_worker_d12_d11(world: World) -> None:
    run = world.start(waits("a", "b", start={"next_method": None}), task("b"))
    world.fire("a", kind="end_success", xcoms='[{"key": "k", "value": 1, "length": null}]')
    world.turns()
    assert world.states(run) == {"a": "success", "b": "queued"}
    assert world.fetch("SELECT count(*) AS n FROM dispatch WHERE ti_id = :i", i=world.ids("a")[0])[
        0
    ] == (0,)
    world.check()


def test_a_retry_starts_in_the_trigger_again_d12(world: World) -> None:
    """Whether the trigger failed or the method after it, and the worker that was lost with it
    comes back to the method."""
    world.start(waits("a", retries=2, retry_delay_us=0))
    first = world.fire("a", kind="failed", error="no such template")
    world.turns()
    assert world.row("a").state == "deferred"
    assert world.row("a").trigger_id > first
    world.fire("a", 1)
    world.turns()
    world.claim()
    world.lose_worker()
    world.turns()
    assert world.work(a=failed()) == ["a"]
    assert world.log("a") == [
        "schedule", "start_deferred", "retry",
        "schedule", "start_deferred", "resume", "enqueue", "start", "lose", "enqueue", "start",
        "retry", "schedule", "start_deferred",
    ]  # fmt: skip
    assert world.row("a").try_number == 3
    world.check()


@pytest.mark.parametrize("after", ["retry", "fail", "skip"])
def test_the_time_out_counts_from_the_start_of_the_trigger_d12_d6(world: World, after: str) -> None:
    start = {"timeout_us": 60 * SECOND, "on_timeout": after}
    world.start(waits("a", retries=1, retry_delay_us=0, start=start))
    assert world.turns().next_due == world.clock.now + 60 * SECOND
    world.clock.advance(61)
    world.turns()
    expected = {"retry": "deferred", "fail": "failed", "skip": "skipped"}[after]
    assert world.states() == {"a": expected}
    assert world.fetch("SELECT * FROM dispatch") == []
    world.check()


def test_no_limit_of_what_runs_concerns_it_until_it_is_back_d12(world: World) -> None:
    world.start(
        task("busy"),
        waits("a", priority_weight=0),
        waits("b", priority_weight=0),
        max_active_tasks=1,
    )
    assert world.states() == {"busy": "queued", "a": "deferred", "b": "deferred"}
    world.fire("a", 1)
    world.turns()
    assert world.row("a").state == "scheduled"
    assert world.work() == ["busy"]
    assert world.work() == ["a"]
    world.check()


def test_a_pool_that_counts_deferred_tasks_has_room_for_their_part_d12_h5(world: World) -> None:
    world.pool("p", 1, deferred_percent=50)
    world.start(*(waits(name, pool="p") for name in "abc"))
    assert sorted(world.states().values()) == ["deferred", "deferred", "scheduled"]
    assert world.used("p") == 1
    world.check()
    (waiting,) = [name for name, state in world.states().items() if state == "scheduled"]
    gone = next(name for name in "abc" if name != waiting)
    world.fire(gone, kind="end_success")
    world.turns()
    assert world.row(waiting).state == "deferred"
    assert world.used("p") == 1
    world.check()


def test_in_such_a_pool_weight_decides_and_patience_ends_d12_h4(world: World) -> None:
    world.pool("p", 1, deferred_percent=100)
    world.start(
        task("x", pool="p", priority_weight=9),
        task("y", pool="p", priority_weight=8),
        waits("a", pool="p", priority_weight=1),
    )
    assert world.states() == {"x": "queued", "y": "scheduled", "a": "scheduled"}
    assert world.work() == ["x"]
    assert world.states()["a"] == "scheduled"
    world.start(task("z", pool="p", priority_weight=9))
    world.clock.advance(61)
    assert world.work() == ["y"]
    assert world.row("a").state == "deferred"
    world.check()


def test_a_paused_dag_starts_no_trigger_d12_s13(world: World) -> None:
    world.start(task("x", "a"), waits("a"))
    world.claim()
    world.pause("d")
    world.end_all({id_: ok() for id_ in list(world.held)})
    world.turns()
    assert world.states() == {"x": "success", "a": "scheduled"}
    world.schedulers[0].forget()
    world.turns()
    assert world.row("a").state == "scheduled"
    world.pause("d", False)
    world.turns()
    assert world.row("a").state == "deferred"
    world.check()


def test_a_user_clears_it_and_it_starts_anew_d12(world: World) -> None:
    world.start(waits("a"))
    (old,) = world.fetch("SELECT id FROM trigger")
    world.clear("a")
    world.turns()
    (new,) = world.fetch("SELECT id FROM trigger")
    assert new.id > old.id
    assert world.row("a").state == "deferred"
    world.check()
