"""What a run, a task instance, a date and a state are (S19-S27); what a skip may touch (H28)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roost.support.clock import SECOND
from tests.scheduler.hands import DAY, World, dag, deferred, failed, ok, skipped, task


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """One scheduler; every promise is checked at the end."""
    made = World(database_url)
    yield made
    made.check()
    made.close()


def test_runs_of_different_dates_are_active_at_once(world: World) -> None:
    """S19: a run is a DAG at one date, with its task instances."""
    world.store(dag("d", task("a")))
    world.trigger("d")
    world.trigger("d")
    world.turns()
    assert len(world.claim()) == 2
    rows = world.fetch("SELECT state, logical_date FROM dag_run")
    assert [row.state for row in rows] == ["running", "running"]
    assert len({row.logical_date for row in rows}) == 2
    world.end_all(dict.fromkeys(list(world.held), ok()))
    world.turns()


def test_every_task_of_a_run_has_its_logical_date_whenever_it_runs(world: World) -> None:
    """S20: logical time, not wall time."""
    world.start(task("a", "b"), task("b"))
    (a,) = world.claim()
    world.clock.advance(86_400)
    world.end(a, ok())
    world.turns()
    (b,) = world.claim()
    assert (a.logical_date, a.interval_start) == (b.logical_date, b.interval_start)
    world.end(b, ok())
    world.turns()


def test_a_task_instance_is_a_task_in_a_run(world: World) -> None:
    """S22: one node, two runs, two task instances, each with a state of its own."""
    world.store(dag("d", task("a")))
    first, second = world.trigger("d"), world.trigger("d")
    world.turns()
    one, two = world.claim()
    world.end_all({one.id: ok(), two.id: failed()})
    world.turns()
    assert world.states(first) == {"a": "success"}
    assert world.states(second) == {"a": "failed"}


def test_upstream_is_in_the_same_run_and_previous_at_the_date_before(world: World) -> None:
    """S23: a failed previous instance holds back a task that asks for it, and nothing else."""
    world.store(dag("d", task("a", "b"), task("b", depends_on_past=True)))
    first = world.trigger("d")
    world.turns()
    world.work()
    world.work(b=failed())
    world.clock.advance(1)
    second = world.trigger("d")
    world.turns()
    world.work()
    assert world.states(first) == {"a": "success", "b": "failed"}
    assert world.states(second) == {"a": "success", "b": "none"}
    world.mark("success", "b", run_key=first)
    world.turns()
    world.work()
    assert world.states(second)["b"] == "success"


def test_a_root_starts_with_its_run_and_the_rest_when_its_upstream_succeeded(world: World) -> None:
    """S24."""
    world.start(task("root", "leaf"), task("leaf"))
    assert world.states() == {"root": "queued", "leaf": "none"}
    (root,) = world.claim()
    world.turns()
    assert world.states()["leaf"] == "none"
    world.end(root, ok())
    world.turns()
    assert world.states() == {"root": "success", "leaf": "queued"}
    world.work()


def test_the_states_of_a_task_that_goes_well(world: World) -> None:
    """S25: none, scheduled, queued, running, success, each a row of the log."""
    world.start(task("a"))
    world.work()
    rows = world.fetch(
        "SELECT from_state, to_state FROM event_log WHERE ti_id > 0 ORDER BY ti_version"
    )
    path = [rows[0].from_state, *(row.to_state for row in rows)]
    assert path == ["none", "scheduled", "queued", "running", "success"]


def test_the_other_states(world: World) -> None:
    """S26: failed, skipped, upstream_failed, up_for_retry, deferred, removed."""
    world.start(
        task("fails", "after"),
        task("after"),
        task("skips"),
        task("again", retries=1, retry_delay_us=DAY),
        task("waits"),
        task("gone"),
    )
    world.work(fails=failed(), skips=skipped(), again=failed(), waits=deferred())
    assert world.states() == {
        "fails": "failed",
        "after": "upstream_failed",
        "skips": "skipped",
        "again": "up_for_retry",
        "waits": "deferred",
        "gone": "success",
    }
    world.fire_all()
    world.clock.advance(86_400)
    world.turns()
    world.work()
    world.store(dag("d", task("fails", "after"), task("after")))
    world.clear("fails", "after")
    assert world.states()["gone"] == "removed"
    world.turns()
    world.work()
    world.work()


def test_a_run_says_who_made_it(world: World) -> None:
    """S27: scheduled, manual and backfilled runs are told apart."""
    world.store(dag("d", task("a"), schedule="@daily"))
    world.turns()
    world.trigger("d")
    midnight = world.clock.now - world.clock.now % DAY
    world.backfill("d", midnight - 9 * DAY, midnight - 9 * DAY)
    rows = world.fetch("SELECT run_id, run_type FROM dag_run ORDER BY id")
    assert [row.run_type for row in rows] == ["scheduled", "manual", "backfill"]
    assert all(row.run_id.startswith(f"{row.run_type}__") for row in rows)
    world.turns()
    world.work()


@pytest.mark.parametrize("began", ["running", "success", "failed", "retry", "deferred"])
def test_a_branch_does_not_skip_what_has_begun(world: World, began: str) -> None:
    """H28: a skip never overwrites a task that runs, has run or goes on later."""
    world.start(
        task("branch", "other"),
        task("other", trigger_rule="always", retries=1, retry_delay_us=SECOND),
    )
    branch, other = sorted(world.claim(), key=lambda one: one.task_id)
    ends = {"success": ok(), "failed": failed(retryable=False), "retry": failed()}
    if began in ends:
        world.end(other, ends[began])
    elif began == "deferred":
        world.end(other, deferred())
    world.turns()
    before = world.states()["other"]
    world.end(branch, ok(skip=["other"]))
    world.turns()
    assert world.states()["other"] == before
    world.fire_all()
    world.clock.advance(2)
    world.turns()
    world.end_all(dict.fromkeys(list(world.held), ok()))
    world.turns()
    world.work()
    assert "skip" not in world.log("other")


def test_a_cleared_task_is_a_new_one_to_a_branch(world: World) -> None:
    """H28: what was cleared has not begun, and may be skipped."""
    world.start(task("branch", "other"), task("other"))
    world.work()
    world.work()
    world.clear("branch", "other")
    world.turns()
    world.work(branch=ok(skip=["other"]))
    assert world.states() == {"branch": "success", "other": "skipped"}
