"""Pools, priorities and every limit on what runs at the same time (S37-S44, H4, H5, S9, S10)."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag.model import Length, SerializedExpand
from roost.models.engine import Sql, Tx
from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, ok, task


def started(world: World) -> list[str]:
    """Task ids in the order they are claimed; they stay claimed."""
    return [one.task_id for one in world.claim()]


def test_a_full_pool_makes_tasks_wait_s39(world: World) -> None:
    world.pool("small", 2)
    world.start(*[task(f"t{n}", pool="small") for n in range(5)])
    assert sorted(world.states().values()) == ["queued"] * 2 + ["scheduled"] * 3
    assert world.turn().starving == {"small": 3}
    ran = []
    while now := world.work():
        assert len(now) <= 2
        world.check()
        ran += now
    assert len(ran) == 5
    assert world.used("small") == 0


def test_priority_decides_who_gets_a_slot_s42_s44(world: World) -> None:
    """One slot; the weight of a task is its own and that of all below it."""
    world.pool("one", 1)
    world.start(
        task("low", pool="one"),
        task("parent", "child", pool="one"),
        task("high", pool="one", priority_weight=5),
        task("absolute", "below", pool="one", priority_weight=4, weight_rule="absolute"),
        task("below", pool="one", priority_weight=100, weight_rule="absolute"),
        task("child", pool="one", priority_weight=3, weight_rule="upstream"),
    )
    order = [name for _ in range(6) for name in world.work()]
    # parent: 1 + 3 = 4 as absolute, and before it in the DAG; child: 3 + 1 = 4 and after it.
    assert order == ["high", "parent", "absolute", "below", "child", "low"]


def test_of_equal_weight_the_earlier_date_goes_first_s43(world: World) -> None:
    """S43."""
    world.pool("one", 1)
    world.pool("none", 0)
    world.store(dag("d", task("a", pool="one")))
    first, second, third = (world.trigger("d", name) for name in ("x", "y", "z"))
    world.turns()
    order = []
    for _ in range(3):
        (one,) = world.claim()
        order.append(one.run_id)
        world.end(one, ok())
        world.turns()
    assert order == ["x", "y", "z"]
    assert len({first, second, third}) == 3


def test_a_task_may_take_several_slots_h5(world: World) -> None:
    world.pool("p", 3)
    world.start(
        task("big", pool="p", pool_slots=2, priority_weight=9),
        task("bigger", pool="p", pool_slots=3, priority_weight=8),
        task("small", pool="p"),
    )
    assert started(world) == ["big", "small"]
    assert world.used("p") == 3
    for id_ in list(world.held):
        world.end(id_, ok())
    world.turns()
    assert world.work() == ["bigger"]


def test_a_task_larger_than_its_pool_waits_and_harms_nobody_h5(world: World) -> None:
    world.pool("p", 2)
    world.start(task("huge", pool="p", pool_slots=3, priority_weight=9), task("a", pool="p"))
    assert world.work() == ["a"]
    assert world.states() == {"huge": "scheduled", "a": "success"}
    world.pool("p", 3)
    world.trigger("d")
    world.turns()
    assert "huge" in world.work()


def test_a_missing_pool_holds_its_tasks_only_s41(world: World) -> None:
    world.start(task("a", pool="nowhere", priority_weight=99), task("b"))
    assert world.work() == ["b"]
    assert world.states() == {"a": "scheduled", "b": "success"}
    assert world.turn().starving == {"nowhere": 1}
    world.pool("nowhere", 1)
    world.turns()
    assert world.work() == ["a"]


def test_a_pool_without_limit_s40(world: World) -> None:
    """S40: -1 slots."""
    world.pool("all", -1)
    world.start(*[task(f"t{n}", pool="all", pool_slots=7) for n in range(5)])
    assert len(started(world)) == 5
    assert world.used("all") == 35
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert world.used("all") == 0


def test_a_full_pool_does_not_hide_another_of_the_same_run_h4(world: World) -> None:
    """More tasks wait for the small pool than the run may have active at once."""
    world.pool("small", 1)
    world.pool("other", 5)
    blocked = [task(f"s{n}", pool="small", priority_weight=9) for n in range(6)]
    world.start(*blocked, task("free", pool="other"), max_active_tasks=3)
    assert started(world) == ["s0", "free"]


def test_a_pool_that_shrinks_lets_nobody_in_until_it_has_room_invariant_s8(world: World) -> None:
    """Chains give a slot back and want one in the same turn."""
    world.pool("p", 4)
    world.start(
        *[task(f"a{n}", f"b{n}", pool="p") for n in range(4)],
        *[task(f"b{n}", f"c{n}", pool="p") for n in range(4)],
        *[task(f"c{n}", pool="p") for n in range(4)],
    )
    first = world.claim()
    world.pool("p", 1)
    world.check()
    for one in first:
        world.end(one, ok())
        world.turns()
    assert world.used("p") <= 1
    while world.work():
        assert world.used("p") <= 1
    assert set(world.states().values()) == {"success"}


def test_a_pool_that_grows_lets_more_in(world: World) -> None:
    world.pool("p", 1)
    world.start(*[task(f"t{n}", pool="p") for n in range(4)])
    assert len(started(world)) == 1
    world.pool("p", 3)
    world.turns()
    assert len(started(world)) == 2


def test_whoever_waits_for_a_slot_is_looked_after_without_a_ring(world: World) -> None:
    """A pool grows, or another scheduler's task gives a slot back: nobody rings."""
    (scheduler,) = world.schedulers
    world.pool("p", 1)
    world.start(task("a", pool="p"), task("b", pool="p"))
    world.claim()
    world.turns()
    world.pool("p", 2)
    assert scheduler.has_work()
    world.turns()
    assert not scheduler.has_work()
    world.end_all({one.id: ok() for one in [*world.held.values(), *world.claim()]})
    assert scheduler.has_work()
    world.turns()
    assert not scheduler.has_work()


def test_a_pool_that_counts_deferral_keeps_the_slot_h5(world: World) -> None:
    world.pool("p", 1, deferred_percent=100)
    world.start(task("a", pool="p", priority_weight=2), task("b", pool="p"))
    assert world.work(a=deferred()) == ["a"]
    assert world.used("p") == 1
    assert world.claim() == []
    world.check()
    world.fire("a")
    world.turns()
    assert world.work() == ["a"]  # in the slot that it kept
    assert world.work() == ["b"]
    assert world.used("p") == 0


def test_a_resumed_task_holds_its_slot_while_it_waits_for_an_executor_h5(world: World) -> None:
    world.schedulers[0]._parallelism = world.parallelism = 1
    world.pool("p", 1, deferred_percent=100)
    world.start(task("a", pool="p", priority_weight=9), task("b"), task("c", pool="p"))
    world.work(a=deferred())
    (b,) = world.claim()
    world.fire("a")
    world.turns()
    assert world.states() == {"a": "scheduled", "b": "running", "c": "scheduled"}
    assert world.used("p") == 1
    world.check()
    for restart in (False, True):
        if restart:
            world.schedulers[0].forget()
            world.turns()
        world.check()
    world.end(b, ok())
    world.turns()
    assert world.work() == ["a"]
    assert world.work() == ["c"]


def test_a_lost_resume_holds_its_slot_while_it_waits_again_h5(world: World) -> None:
    world.schedulers[0]._parallelism = world.parallelism = 1
    world.pool("p", 1, deferred_percent=100)
    world.start(task("b", priority_weight=9), task("a", pool="p", priority_weight=8), task("c"))
    world.work()
    world.work(a=deferred())
    (c,) = world.claim()
    world.fire("a")
    world.turns()
    world.end(c, ok())
    world.turns()
    (resumed,) = world.claim()
    assert resumed.next_method == "execute_complete"
    world.schedulers[0]._parallelism = 0  # no executor slot when it is lost
    world.lose_worker()
    world.turns()
    assert world.states()["a"] == "scheduled"
    world.check()
    world.schedulers[0]._parallelism = 1
    world.schedulers[0].forget()
    world.turns()
    world.check()
    (again,) = world.claim()
    assert again.next_method == "execute_complete"
    world.end(again, ok())
    world.turns()
    assert world.used("p") == 0


@pytest.mark.parametrize("ending", ["failed", "timeout"])
def test_a_deferral_that_fails_gives_its_kept_slot_back_h5(world: World, ending: str) -> None:
    world.pool("p", 1, deferred_percent=100)
    world.start(task("a", pool="p", priority_weight=2), task("b", pool="p"))
    world.work(a=deferred(timeout_s=5))
    if ending == "failed":
        world.fire("a", kind="failed", error="no")
    else:
        world.clock.advance(6)
    world.turns()
    assert world.work() == ["b"]
    assert world.used("p") == 0


def test_deferred_tasks_may_share_a_slot_h5(world: World) -> None:
    """At 50 per cent two that wait leave one slot of two to others; a resume goes before them."""
    world.pool("p", 2, deferred_percent=50)
    tasks = [task(name, pool="p", priority_weight=n) for n, name in enumerate("fedcba")]
    world.start(*tasks)
    assert world.work(a=deferred(), b=deferred()) == ["a", "b"]
    assert world.used("p") == 2  # both wait, each with half a slot, and c runs
    world.check()
    (c,) = world.claim()
    world.fire("b")
    world.turns()
    assert world.states()["b"] == "scheduled"  # it needs another half
    world.end(c, ok())
    world.turns()
    (b,) = world.claim()  # and none that has not begun: half a slot is left
    assert b.task_id == "b"
    assert world.used("p") == 1.5
    world.end(b, failed())
    world.turns()
    world.check()
    world.fire("a")
    world.turns()
    while world.work():
        world.check()
    assert world.used("p") == 0


@pytest.mark.parametrize("counts", [True, False])
def test_a_pool_that_changes_its_mind_about_deferral_counts_right_h5(
    world: World, counts: bool
) -> None:
    world.pool("p", 2, deferred_percent=0 if counts else 100)
    world.start(task("a", pool="p", priority_weight=3), task("b", pool="p", priority_weight=2))
    world.work(a=deferred())
    world.pool("p", 2, deferred_percent=100 if counts else 0)
    world.turns()
    world.check()
    world.fire("a")
    world.turns()
    world.check()
    world.work()
    assert world.used("p") == 0


def test_max_active_tasks_holds_for_each_run_invariant_s10(world: World) -> None:
    world.store(dag("d", *[task(f"t{n}") for n in range(5)], max_active_tasks=2))
    world.trigger("d")
    world.trigger("d")
    world.turns()
    claimed = world.claim()
    assert len(claimed) == 4
    world.check()
    world.end(claimed[0], failed())
    world.turns()
    assert len(world.claim()) == 1


def test_a_task_is_limited_over_all_runs_of_its_dag_h4(world: World) -> None:
    """And those that must wait for it hide nobody, however good their rank."""
    lone = task("lone", priority_weight=9, max_active_tis_per_dag=2)
    world.store(dag("d", lone, task("other"), max_active_tasks=1))
    for _ in range(5):
        world.trigger("d")
    world.turns()
    claimed = world.claim()
    assert sorted(one.task_id for one in claimed) == ["lone", "lone", "other", "other", "other"]
    world.check()
    world.end_all({one.id: ok() for one in claimed})
    world.turns()
    assert sorted(one.task_id for one in world.claim()) == ["lone", "lone", "other", "other"]
    for _ in range(5):
        world.end_all(dict.fromkeys(list(world.held), ok()))
        world.turns()
        world.claim()
        world.check()
    assert set(world.states().values()) == {"success"}
    assert world.fetch("SELECT used FROM task_usage")[0].used == 0


def test_mapped_instances_are_limited_in_each_run_h4_h17(world: World) -> None:
    """And however many wait for their limit, they keep no other task of the run from going."""
    many = SerializedExpand([Length("literal", count=30)])
    world.store(
        dag(
            "d",
            task("m", expand=many, priority_weight=9, max_active_tis_per_dagrun=2),
            task("other"),
            max_active_tasks=4,
        )
    )
    for _ in range(2):
        world.trigger("d")
    world.turns()
    claimed = world.claim()
    assert sorted(one.task_id for one in claimed) == ["m", "m", "m", "m", "other", "other"]
    world.check()
    left = 60 - 4
    while claimed:
        world.end_all({one.id: ok() for one in claimed})
        world.turns()
        claimed = world.claim()
        assert len(claimed) <= 4
        left -= len(claimed)
        world.check()
    assert left == 0
    assert set(world.states().values()) == {"success"}


def test_the_earliest_run_goes_first_to_a_limited_task_h4(world: World) -> None:
    world.store(dag("d", task("one", max_active_tis_per_dag=1)))
    for name in "xyz":
        world.trigger("d", name)
    world.turns()
    order = []
    while claimed := world.claim():
        order += [one.run_id for one in claimed]
        world.end_all({one.id: ok() for one in claimed})
        world.turns()
    assert order == ["x", "y", "z"]


def test_a_paused_or_full_run_does_not_keep_a_limited_task_from_others_h4(world: World) -> None:
    one = task("one", max_active_tis_per_dag=1)
    world.pool("p", 0)
    world.store(dag("d", task("hog", priority_weight=9), one, max_active_tasks=1))
    world.trigger("d", "full")
    world.turns()
    (hog,) = world.claim()
    world.trigger("d", "next")
    world.turns()
    (second,) = world.claim()
    world.end(second, ok())
    world.turns()
    assert [(o.run_id, o.task_id) for o in world.claim()] == [("next", "one")]
    assert hog.id in world.held


def test_a_lowered_limit_lets_nobody_in_until_there_is_room_h4(world: World) -> None:
    world.store(dag("d", task("a", max_active_tis_per_dag=3)))
    for _ in range(4):
        world.trigger("d")
    world.turns()
    claimed = world.claim()
    assert len(claimed) == 3
    world.store(dag("d", task("a", max_active_tis_per_dag=1)))
    world.check()
    for one in claimed[:2]:
        world.end(one, ok())
        world.turns()
        assert world.claim() == []
        world.check()
    world.end(claimed[2], ok())
    world.turns()
    assert len(world.claim()) == 1
    world.store(dag("d", task("a")))  # lifted: what runs by the older version is still counted
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert world.fetch("SELECT used FROM task_usage")[0].used == 0


def test_a_wrong_count_of_a_limited_task_is_mended_at_start_h4(world: World) -> None:
    world.start(task("a", max_active_tis_per_dag=2), task("b", max_active_tis_per_dag=1))
    world.trigger("d")
    for wrong in (0, 1):
        world.execute("UPDATE task_usage SET used = :n", n=wrong)
        world.schedulers[0].forget()
        world.turns()
        world.check()
    assert sorted(started(world)) == ["a", "a", "b"]


def test_a_dag_without_limited_tasks_pays_nothing_for_them_h4(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start(task("a", "b"), task("b"))
    asked: list[str] = []
    for name in ("all", "run", "first", "scalar"):
        plain = getattr(Tx, name)

        def told(tx: Tx, sql: Sql, plain: Any = plain, **params: Any) -> Any:
            asked.append(sql.source)
            return plain(tx, sql, **params)

        monkeypatch.setattr(Tx, name, told)
    world.work()
    world.work()
    assert asked
    assert not any("task_usage" in statement for statement in asked)


def test_parallelism_holds_over_all_runs_invariant_s10(world: World) -> None:
    world.schedulers[0]._parallelism = world.parallelism = 3
    world.store(*[dag(f"d{n}", task("a"), task("b")) for n in range(4)])
    for n in range(4):
        world.trigger(f"d{n}")
    world.turns()
    assert len(world.claim()) == 3
    world.end(next(iter(world.held)), deferred())
    world.turns()
    assert len(world.claim()) == 1
    assert world.turn().in_flight == 3


def test_max_active_runs_invariant_s9(world: World) -> None:
    world.store(dag("d", task("a"), max_active_runs=2))
    keys = [world.trigger("d") for _ in range(5)]
    world.turns()
    assert [world.run_state(key) for key in keys] == ["running"] * 2 + ["queued"] * 3
    for waiting in (3, 2, 1, 0):
        world.end(world.claim(1)[0] if not world.held else next(iter(world.held)), ok())
        world.turns()
        states = [world.run_state(key) for key in keys]
        assert states.count("queued") == max(0, waiting - 1)
        assert states.count("running") <= 2
        world.check()


def test_fewer_runs_may_be_active_from_now_on_invariant_s9(world: World) -> None:
    world.store(dag("d", task("a"), max_active_runs=3))
    keys = [world.trigger("d") for _ in range(5)]
    world.turns()
    world.store(dag("d", task("a"), max_active_runs=1, description="new"))
    claimed = world.claim()
    for one, running in zip(claimed, (2, 1, 1), strict=True):
        world.end(one, ok())
        world.turns()
        world.check()
        assert [world.run_state(key) for key in keys].count("running") == running


def test_nothing_new_is_queued_while_a_dag_is_paused_invariant_s13(world: World) -> None:
    world.store(dag("d", task("a", "b"), task("b"), task("later")), dag("e", task("x")))
    run = world.trigger("d")
    world.turns()
    a = next(one for one in world.claim() if one.task_id == "a")
    world.pause("d")
    world.trigger("d")
    world.trigger("e")
    world.end(a, ok())
    world.turns()
    assert world.states(run) == {"a": "success", "b": "scheduled", "later": "running"}
    assert [one.task_id for one in world.claim()] == ["x"]
    world.schedulers[0].forget()
    world.turns()
    assert world.claim() == []
    world.pause("d", False)
    world.turns()
    assert sorted(started(world)) == ["a", "b", "later"]


def test_a_deferral_goes_on_while_its_dag_is_paused_invariant_s13(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred())
    world.pause("d")
    world.fire("a")
    world.turns()
    assert world.states() == {"a": "scheduled"}
    world.pause("d", False)
    world.turns()
    assert world.work() == ["a"]


def test_a_run_waits_for_its_moment_and_nobody_has_to_wake_it(world: World) -> None:
    """Asked for by a host whose clock goes before."""
    world.store(dag("d", task("a")))
    run = world.trigger("d", delay_s=3)
    due = world.turns().next_due
    assert world.run_state(run) == "queued"
    assert due == world.clock.now + 3 * SECOND
    world.clock.advance(3)
    world.turns()
    assert world.run_state(run) == "running"


def test_one_that_comes_back_passes_a_new_one_at_the_limit_of_their_task_h4(world: World) -> None:
    """It holds the pool slots that the new one waits for: were it kept out, both would wait for
    ever."""
    world.pool("p", 2, deferred_percent=100)
    world.store(dag("d", task("a", pool="p", pool_slots=2, max_active_tis_per_dag=1)))
    world.trigger("d", "old")
    world.turns()
    world.end_all({one.id: deferred() for one in world.claim()})
    world.trigger("d", "new")
    world.turns()
    assert world.claim() == []
    world.fire_all()
    world.turns()
    (back,) = world.claim()
    assert back.run_id == "old"
    world.end(back, ok())
    world.turns()
    assert [one.run_id for one in world.claim()] == ["new"]
