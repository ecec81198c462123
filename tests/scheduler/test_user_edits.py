"""What users do to runs and task instances: clear and mark, at rest and in flight (S97, H21)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, ok, task


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """One scheduler; every promise is checked at the end."""
    made = World(database_url)
    yield made
    made.check()
    made.close()


def test_a_cleared_task_runs_again_with_what_follows_it(world: World) -> None:
    key = world.start(task("a", "b"), task("b", "c"), task("c"))
    world.work()
    world.work(b=failed())
    assert world.run_state(key) == "failed"
    assert world.states() == {"a": "success", "b": "failed", "c": "upstream_failed"}
    edited = world.clear("b", "c")
    assert edited == (2, 0, 1)
    assert world.states() == {"a": "success", "b": "none", "c": "none"}
    assert world.run_state(key) == "queued"
    world.turns()
    assert world.run_state(key) == "running"
    assert [world.work(), world.work()] == [["b"], ["c"]]
    assert world.run_state(key) == "success"
    assert world.row("a").try_number == 1
    assert world.row("b").try_number == 2


def test_a_cleared_task_has_all_its_retries_again_and_counts_on(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0))
    world.work(a=failed())
    world.work(a=failed())
    assert world.states() == {"a": "failed"}
    world.clear("a")
    world.turns()
    world.work(a=failed())
    assert world.states() == {"a": "scheduled"} or world.states() == {"a": "queued"}
    world.work(a=failed())
    assert world.states() == {"a": "failed"}
    assert (world.row("a").try_number, world.row("a").first_try) == (4, 2)


def test_a_worker_is_told_how_many_tries_there_may_be(world: World) -> None:
    world.start(task("a"))
    world.work(a=failed())
    world.clear("a")
    world.turns()
    (claimed,) = world.claim()
    assert (claimed.try_number, claimed.first_try) == (2, 1)
    world.end(claimed, ok())


def test_xcoms_and_marks_of_a_former_try_are_forgotten(world: World) -> None:
    key = world.start(task("a"))
    world.work()
    (ti_id,) = world.ids("a")
    world.execute(
        "INSERT INTO xcom (ti_id, key, value, created_at) VALUES (:i, 'k', '1', 0)", i=ti_id
    )
    world.clear("a")
    assert world.fetch("SELECT * FROM xcom") == []
    row = world.row("a")
    assert (row.start_date, row.end_date, row.hostname, row.queued_at) == (None,) * 4
    world.turns()
    world.work()
    assert world.run_state(key) == "success"


def test_a_deferred_task_leaves_its_trigger_and_its_slots(world: World) -> None:
    world.pool("p", 2, deferred_percent=100)
    world.start(task("a", pool="p", pool_slots=2))
    world.work(a=deferred())
    assert world.states() == {"a": "deferred"}
    assert world.used("p") == 2
    world.clear("a")
    assert world.pending_triggers() == []
    assert world.used("p") == 0
    world.turns()
    assert world.work() == ["a"]


def test_a_resumed_task_that_waits_for_a_slot_gives_back_what_it_holds(world: World) -> None:
    world.pool("p", 1, deferred_percent=100)
    world.parallelism = 32
    world.start(task("a", pool="p"))
    world.work(a=deferred())
    world.pause("d")
    world.turns()
    world.fire("a")
    world.turns()
    assert world.states() == {"a": "scheduled"}
    assert world.used("p") == 1
    world.mark("skipped", "a")
    assert world.used("p") == 0
    assert world.row("a").next_method is None
    world.pause("d", False)
    world.turns()


def test_an_alarm_of_a_former_retry_means_nothing_after_a_clear(world: World) -> None:
    world.start(task("a", retries=3, retry_delay_us=60 * SECOND))
    world.work(a=failed())
    world.clock.advance(50)
    world.clear("a")
    world.turns()
    world.work(a=failed())  # its retry is due in 60 s; that of the former try in 10 s
    world.clock.advance(15)
    world.turns()
    assert world.states() == {"a": "up_for_retry"}
    world.clock.advance(45)
    world.turns()
    assert world.states() == {"a": "queued"}
    world.work()


def test_what_no_worker_has_is_taken_back_at_once(world: World) -> None:
    world.start(task("a"))
    (before,) = world.fetch("SELECT id FROM dispatch")
    assert world.clear("a") == (0, 1, 1)
    assert world.states() == {"a": "queued"}
    assert world.claim() == []  # with a wish on it nobody takes it
    world.turns()
    assert world.states() == {"a": "queued"}
    assert "clear" in world.log("a")
    (claimed,) = world.claim()
    assert claimed.id > before.id
    world.end(claimed, ok())
    world.turns()


@pytest.mark.parametrize(
    ("wish", "then"),
    [("clear", "queued"), ("success", "success"), ("failed", "failed"), ("skipped", "skipped")],
)
@pytest.mark.parametrize("ends", ["killed", "success", "failed", "worker", "deferred"])
def test_what_runs_is_ended_first_and_the_wish_wins(
    world: World, wish: str, then: str, ends: str
) -> None:
    key = world.start(task("a", retries=1))
    (claimed,) = world.claim()
    edit = world.clear if wish == "clear" else lambda *names: world.mark(wish, *names)  # type: ignore[arg-type]
    assert edit("a") == (0, 1, 1)
    world.turns()
    assert world.states() == {"a": "running"}  # and no second copy anywhere
    assert world.claim() == []
    match ends:
        case "killed":
            assert world.obey() == {claimed.id}
        case "worker":
            world.lose_worker()
        case _:
            world.end(claimed, {"success": ok(), "failed": failed(), "deferred": deferred()}[ends])
    world.turns()
    assert world.states() == {"a": then}
    assert world.pending_triggers() == []
    if wish == "clear":
        assert world.row("a").first_try == 1
        assert world.work() == ["a"]
    assert world.run_state(key) == ("failed" if wish == "failed" else "success")
    assert world.used() == 0


def test_the_last_wish_counts(world: World) -> None:
    world.start(task("a"))
    world.claim()
    world.clear("a")
    world.mark("success", "a")
    world.obey()
    world.turns()
    assert world.states() == {"a": "success"}


def test_marking_goes_on_with_what_waited_for_it(world: World) -> None:
    key = world.start(task("a", "b"), task("b"))
    world.work(a=failed())
    assert world.run_state(key) == "failed"
    world.mark("success", "a")
    world.clear("b")
    world.turns()
    assert world.work() == ["b"]
    assert world.run_state(key) == "success"


def test_a_finished_run_takes_the_state_that_its_marked_tasks_give_it(world: World) -> None:
    key = world.start(task("a"))
    world.work()
    assert world.run_state(key) == "success"
    world.mark("failed", "a")
    world.turns()
    assert world.run_state(key) == "failed"
    world.mark("success", "a")
    world.turns()
    assert world.run_state(key) == "success"


def test_a_run_marked_failed_ends_what_runs_and_skips_the_rest(world: World) -> None:
    key = world.start(task("a", "c"), task("b", "c"), task("c"))
    world.claim(1)
    edited = world.mark_run(key, "failed")
    assert edited.wished == 2
    assert world.states()["c"] == "skipped"
    world.turns()
    assert world.run_state(key) == "running"
    world.obey()
    world.turns()
    assert world.states() == {"a": "failed", "b": "failed", "c": "skipped"}
    assert world.run_state(key) == "failed"
    assert world.used() == 0


def test_a_run_marked_success_is_one_whatever_its_tasks_did(world: World) -> None:
    key = world.start(task("a", "c"), task("b", "c"), task("c"))
    world.work(a=failed())
    assert world.run_state(key) == "failed"
    world.mark_run(key, "success")
    assert set(world.states().values()) == {"success"}
    assert world.run_state(key) == "success"
    world.mark_run(key, "failed")
    assert set(world.states().values()) == {"success"}
    assert world.run_state(key) == "failed"


def test_a_queued_run_can_be_marked_before_it_starts(world: World) -> None:
    world.store(dag("d", task("a"), max_active_runs=1))
    first, second = world.trigger("d"), world.trigger("d")
    world.turns()
    world.mark_run(second, "failed")
    world.work()
    world.clock.advance(10)
    world.turns()
    assert (world.run_state(first), world.run_state(second)) == ("success", "failed")


def test_a_run_that_is_cleared_waits_for_room_like_any_other(world: World) -> None:
    world.store(dag("d", task("a"), max_active_runs=1))
    first = world.trigger("d")
    world.turns()
    world.work()
    world.trigger("d")
    world.turns()
    world.clear("a", run_key=first)
    world.turns()
    assert world.run_state(first) == "queued"
    world.work()
    world.clock.advance(10)
    world.turns()
    assert world.run_state(first) == "running"
    world.work()
    assert world.run_state(first) == "success"


def test_a_cleared_run_goes_on_with_the_newest_version(world: World) -> None:
    """What its file has lost is removed (S26), what it has gained is created."""
    key = world.start(task("a"), task("gone"))
    world.work(a=failed())
    world.store(dag("d", task("a", "new"), task("new")))
    world.clear("a", "gone")
    assert world.states()["gone"] == "removed"
    world.turns()
    assert [world.work(), world.work()] == [["a"], ["new"]]
    assert world.states() == {"a": "success", "gone": "removed", "new": "success"}
    assert world.run_state(key) == "success"


def test_a_cleared_run_may_keep_its_version(world: World) -> None:
    world.start(task("a"), task("gone"))
    world.work()
    world.store(dag("d", task("a", "new"), task("new")))
    world.clear("a", keep_version=True)
    world.turns()
    assert world.work() == ["a"]
    assert world.states() == {"a": "success", "gone": "success"}


def test_a_running_run_is_read_again_when_some_of_it_is_cleared(world: World) -> None:
    key = world.start(task("a", "b"), task("b", "c"), task("c"))
    world.work()
    (b,) = world.claim()
    world.clear("a")
    world.turns()
    assert world.work() == ["a"]
    world.end(b, ok())
    world.turns()
    assert world.work() == ["c"]
    assert world.run_state(key) == "success"


def test_a_scheduler_that_died_leaves_the_wishes_to_the_next(world: World) -> None:
    key = world.start(task("a"), task("b"))
    world.claim(1)
    world.clear("a", "b")
    world.lose_scheduler(0)
    world.schedulers[0].join(world.register("scheduler"))
    world.turns()
    world.obey()
    world.turns()
    assert sorted(world.work()) == ["a", "b"]
    assert world.run_state(key) == "success"
    assert [row.n for row in world.fetch("SELECT count(*) AS n FROM dispatch")] == [4]


def test_a_cleared_task_waits_for_its_previous_run_again(world: World) -> None:
    """S76: what held it back at first may do so again."""
    world.store(dag("d", task("a", depends_on_past=True)))
    first = world.trigger("d")
    world.turns()
    world.work()
    world.clock.advance(1)
    second = world.trigger("d")
    world.turns()
    (running,) = world.claim()
    world.clear("a", run_key=first)
    world.clear("a", run_key=second)
    world.obey()
    world.turns()
    assert world.held == {}
    assert world.states(second) == {"a": "none"}
    assert world.work() == ["a"]
    assert world.run_state(first) == "success"
    world.turns()
    assert world.work() == ["a"]
    assert world.run_state(second) == "success"
    assert running.id
