"""Runs that are ended before their tasks have, and DAGs paused for failing (H11, H12)."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag.model import Length, SerializedExpand
from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, ok, task

TIMED_OUT = "timed out: it took longer than dagrun_timeout"
FAILED_FAST = "a task failed, and the DAG has fail_fast"


def ending(world: World, run_key: int) -> tuple[str, str | None]:
    """A run's state, and why it came to it."""
    rows = world.fetch(
        "SELECT reason FROM event_log WHERE dag_run_id = :k AND ti_id IS NULL ORDER BY id",
        k=run_key,
    )
    return world.run_state(run_key), rows[-1].reason


def test_a_run_that_takes_too_long_fails_h11(world: World) -> None:
    """Whatever has not ended is skipped, in every state that there is."""
    world.pool("kept", 1, deferred_percent=100)
    world.pool("none", 0)
    key = world.start(
        task("done", "never"),
        task("defers", pool="kept"),
        task("retries", retries=1, retry_delay_us=3600 * SECOND),
        task("runs", "never"),
        task("waits", pool="none"),
        task("never"),
        dagrun_timeout_us=60 * SECOND,
    )
    for one in world.claim():
        outcome = {"done": ok(), "defers": deferred(), "retries": failed()}.get(one.task_id)
        if outcome:
            world.end(one, outcome)
    world.turns()
    world.clock.advance(59)
    world.turns()
    assert world.run_state(key) == "running"
    world.clock.advance(1)
    report = world.turn()
    assert report.wished
    assert report.deferred
    world.turns()
    assert world.states() == {
        "done": "success",
        "defers": "skipped",
        "retries": "skipped",
        "runs": "running",  # until its worker has killed it: two copies never live
        "waits": "skipped",
        "never": "skipped",
    }
    assert world.used("kept") == 0
    assert world.fetch("SELECT id FROM trigger") == []
    assert world.run_state(key) == "running"
    world.check()
    assert len(world.obey()) == 1
    world.turns()
    assert ending(world, key) == ("failed", TIMED_OUT)
    assert world.states()["runs"] == "skipped"
    assert set(world.reasons("mark_skipped")) == {TIMED_OUT}
    assert world.work() == []


def test_mapped_tasks_are_cut_short_too_h11_h17(world: World) -> None:
    """One instance runs, two wait, and another task is not expanded yet."""
    three = SerializedExpand([Length("literal", count=3)])
    key = world.start(
        task("m", "n", expand=three, max_active_tis_per_dagrun=1),
        task("n", expand=three),
        dagrun_timeout_us=60 * SECOND,
    )
    assert len(world.claim()) == 1
    world.clock.advance(60)
    world.turns()
    world.obey()
    world.turns()
    assert ending(world, key) == ("failed", TIMED_OUT)
    rows = world.fetch("SELECT task_id, state FROM task_instance ORDER BY id")
    assert {(row.task_id, row.state) for row in rows} == {("m", "skipped"), ("n", "skipped")}
    assert len(rows) == 4


def test_what_no_worker_has_taken_is_taken_back_when_time_is_up_h11(world: World) -> None:
    key = world.start(task("a"), dagrun_timeout_us=60 * SECOND)
    world.clock.advance(60)
    world.turns()
    assert world.states() == {"a": "skipped"}
    assert ending(world, key) == ("failed", TIMED_OUT)
    assert world.claim() == []


def test_a_worker_that_dies_meanwhile_does_not_keep_the_run_h11(world: World) -> None:
    key = world.start(task("a", retries=3), dagrun_timeout_us=60 * SECOND)
    world.claim()
    world.clock.advance(60)
    world.turns()
    world.lose_worker()
    world.turns()
    assert (world.states(), world.run_state(key)) == ({"a": "skipped"}, "failed")


def test_another_scheduler_knows_that_the_time_is_up_h11(world: World) -> None:
    """A run that is read again from the database times out at the same moment, once."""
    key = world.start(task("a"), dagrun_timeout_us=60 * SECOND)
    world.claim()
    world.execute("UPDATE dag_run SET start_date = :at", at=world.clock.now)
    world.schedulers[0].forget()
    world.turns()
    world.clock.advance(60)
    world.turns()
    world.schedulers[0].forget()
    world.turns()
    world.obey()
    world.turns()
    assert ending(world, key) == ("failed", TIMED_OUT)


def test_a_run_that_ends_in_time_is_left_alone_h11(world: World) -> None:
    key = world.start(task("a"), dagrun_timeout_us=60 * SECOND)
    world.work()
    world.clock.advance(60)
    world.turns()
    assert ending(world, key) == ("success", None)


def test_a_run_that_was_cleared_has_all_its_time_again_h11(world: World) -> None:
    key = world.start(task("a"), dagrun_timeout_us=60 * SECOND)
    world.clock.advance(60)
    world.turns()
    world.clear()
    world.turns()
    world.clock.advance(59)
    assert world.work() == ["a"]
    assert world.run_state(key) == "success"


@pytest.mark.parametrize("retries", [0, 1])
def test_the_first_final_failure_ends_the_run_h12(world: World, retries: int) -> None:
    """What runs is ended, what waits is skipped; a failure with a retry left ends nothing."""
    key = world.start(
        task("a", "b", retries=retries, retry_delay_us=0),
        task("b", trigger_rule="all_done"),
        task("other", "later"),
        task("later"),
        fail_fast=True,
    )
    for _ in range(retries):
        (one,) = (one for one in world.claim() if one.task_id == "a")
        world.end(one, failed())
        world.turns()
        assert world.run_state(key) == "running"
        assert world.states()["b"] == "none"
    world.claim()
    (one,) = (one for one in world.held.values() if one.task_id == "a")
    world.end(one, failed())
    world.turns()
    world.obey()
    world.turns()
    assert world.states() == {"a": "failed", "b": "skipped", "other": "skipped", "later": "skipped"}
    assert ending(world, key) == ("failed", FAILED_FAST)


def test_teardowns_still_run_when_a_run_fails_fast_h12(world: World) -> None:
    key = world.start(
        task("up", "work down", setup=True),
        task("work", "down"),
        task("slow", "down"),
        task("down", teardown=True, trigger_rule="all_done_setup_success"),
        fail_fast=True,
    )
    world.end_all({one.id: ok() for one in world.claim() if one.task_id == "up"})
    world.turns()
    world.claim()
    world.end_all({n: failed() for n, one in world.held.items() if one.task_id == "work"})
    world.turns()
    world.obey()
    world.turns()
    assert world.work() == ["down"]
    assert world.states()["down"] == "success"
    assert ending(world, key) == ("failed", FAILED_FAST)


def test_without_fail_fast_others_go_on_h12(world: World) -> None:
    world.start(task("a"), task("b", "c"), task("c"))
    world.work(a=failed())
    assert world.work() == ["c"]


def outcomes(world: World, *ends: Any) -> None:
    """One run after the other, each with its end."""
    for end in ends:
        world.trigger("d")
        world.turns()
        world.work(a=end)


def paused(world: World) -> tuple[bool, str | None]:
    row = world.fetch("SELECT is_paused, paused_reason FROM dag")[0]
    return bool(row.is_paused), row.paused_reason


def test_runs_that_fail_in_a_row_pause_the_dag_h12(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store(dag("d", task("a"), max_consecutive_failed_dag_runs=2, max_active_runs=1))
    outcomes(world, failed(), ok(), failed())
    assert paused(world) == (False, None)
    world.trigger("d", "before")
    world.trigger("d", "after")
    world.turns()
    world.work(a=failed())
    reason = "2 runs in a row failed (max_consecutive_failed_dag_runs=2)"
    assert paused(world) == (True, reason)
    assert f"DAG d is paused: {reason}" in caplog.text
    (row,) = world.fetch("SELECT reason FROM event_log WHERE event = 'pause'")
    assert row.reason == f"d: {reason}"
    assert world.claim() == []  # the run that stood in line did not start meanwhile
    world.pause("d", False)
    assert paused(world) == (False, None)
    world.turns()
    assert world.work(a=ok()) == ["a"]
    assert paused(world) == (False, None)
