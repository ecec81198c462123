"""Backfills: which intervals run, in which order, under which limit (H21, H12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from roost.dag.model import SerializedDag, SerializedTimetable
from roost.exceptions import RoostException
from roost.models.queries import backfills
from tests.scheduler.hands import DAY, START, World, dag, failed, ok, task

MIDNIGHT = START - START % DAY
FIRST = MIDNIGHT - 10 * DAY


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """One scheduler; every promise is checked at the end."""
    made = World(database_url)
    yield made
    made.check()
    made.close()


def daily(**knobs: Any) -> SerializedDag:
    tasks = knobs.pop("tasks", (task("a"),))
    return dag("d", *tasks, schedule="@daily", **knobs)


def quiet(world: World) -> None:
    """No scheduled runs beside the backfill."""
    world.execute("UPDATE dag SET next_run_after = NULL")


def days(world: World, state: str) -> list[int]:
    """Days since FIRST of the runs in a state, in the order in which they started."""
    rows = world.fetch(
        "SELECT r.logical_date FROM dag_run r JOIN event_log e ON e.dag_run_id = r.id "
        "AND e.event = 'start' AND e.ti_id IS NULL WHERE r.state = :s ORDER BY e.id",
        s=state,
    )
    return [(row.logical_date - FIRST) // DAY for row in rows]


def test_each_interval_gets_one_run_of_its_own_kind(world: World) -> None:
    """H21, S27, S19: both ends are included; the id says what it is."""
    world.store(daily())
    quiet(world)
    world.backfill("d", FIRST, FIRST + 2 * DAY)
    rows = world.fetch("SELECT * FROM dag_run ORDER BY id")
    assert [(row.logical_date - FIRST) // DAY for row in rows] == [0, 1, 2]
    assert {row.run_type for row in rows} == {"backfill"}
    assert rows[0].run_id == "backfill__2026-02-19T00:00:00+00:00"
    assert (rows[0].interval_start, rows[0].interval_end) == (FIRST, FIRST + DAY)
    world.turns()
    assert world.work() == ["a", "a", "a"]
    assert days(world, "success") == [0, 1, 2]
    (row,) = world.fetch("SELECT * FROM backfill")
    assert row.ended_at is not None


def test_its_limit_is_its_own_and_the_dags_limit_does_not_count_it(world: World) -> None:
    """H21, H12: own max_active_runs."""
    world.store(daily(max_active_runs=1))
    quiet(world)
    world.backfill("d", FIRST, FIRST + 4 * DAY, max_active_runs=2)
    by_hand = world.trigger("d")
    world.turns()
    assert days(world, "running")[:2] == [0, 1]
    assert world.run_state(by_hand) == "running"
    (row,) = world.fetch("SELECT runs FROM dag_usage")
    assert row.runs == 1
    world.check()
    done = world.claim(1)
    world.end(done[0], ok())
    world.turns()
    world.check()
    for _ in range(5):
        world.work()
    assert set(days(world, "success")) == {0, 1, 2, 3, 4, 10}  # by hand: today


def test_backwards_starts_with_the_newest(world: World) -> None:
    """H21: reverse."""
    world.store(daily())
    quiet(world)
    world.backfill("d", FIRST, FIRST + 3 * DAY, backwards=True, max_active_runs=1)
    world.turns()
    for _ in range(4):
        world.work()
    assert days(world, "success") == [3, 2, 1, 0]


def test_backwards_is_refused_where_tasks_depend_on_the_past(world: World) -> None:
    world.store(daily(tasks=(task("a", depends_on_past=True),)))
    with pytest.raises(RoostException, match="a of DAG 'd' depend on the run before"):
        world.backfill("d", FIRST, FIRST + DAY, backwards=True)


@pytest.mark.parametrize(
    ("reprocess", "again"), [("none", set()), ("failed", {1}), ("completed", {0, 1})]
)
def test_intervals_that_ran_are_run_again_as_asked(
    world: World, reprocess: Any, again: set[int]
) -> None:
    """H21: reprocess none, failed, completed; a run that goes on is left alone."""
    world.store(daily())
    quiet(world)
    world.backfill("d", FIRST, FIRST + DAY)
    world.turns()
    one, two = world.claim()
    world.end_all({one.id: ok(), two.id: failed()})
    world.turns()
    world.backfill("d", FIRST + 2 * DAY, FIRST + 2 * DAY)
    world.turns()
    assert days(world, "running") == [2]
    second = world.backfill("d", FIRST, FIRST + 3 * DAY, reprocess=reprocess)
    world.turns()
    rows = world.fetch("SELECT logical_date FROM dag_run WHERE backfill_id = :b", b=second)
    assert {(row.logical_date - FIRST) // DAY for row in rows} == again | {3}
    world.work()
    assert {row.state for row in world.fetch("SELECT state FROM dag_run")} <= {"success", "failed"}
    tries = world.fetch(
        "SELECT r.logical_date, t.try_number FROM task_instance t "
        "JOIN dag_run r ON r.id = t.dag_run_id"
    )
    assert {(r.logical_date - FIRST) // DAY for r in tries if r.try_number == 2} == again


def test_a_failed_run_that_never_began_is_run_again_too(world: World) -> None:
    world.store(daily())
    quiet(world)
    world.backfill("d", FIRST, FIRST)
    (row,) = world.fetch("SELECT id FROM dag_run")
    world.mark_run(row.id, "failed")
    world.backfill("d", FIRST, FIRST, reprocess="failed")
    world.turns()
    assert world.work() == ["a"]
    assert world.run_state(row.id) == "success"


def test_a_paused_backfill_starts_nothing(world: World) -> None:
    """H21: is_paused."""
    world.store(daily())
    quiet(world)
    backfill_id = world.backfill("d", FIRST, FIRST + DAY)
    world.transact(lambda tx: backfills.set_paused(tx, backfill_id, True))
    world.turns()
    assert days(world, "running") == []
    world.transact(lambda tx: backfills.set_paused(tx, backfill_id, False))
    world.clock.advance(2)
    world.turns()
    assert days(world, "running") == [0, 1]
    world.work()


def test_a_paused_dag_holds_its_backfill_back(world: World) -> None:
    world.store(daily())
    quiet(world)
    world.backfill("d", FIRST, FIRST)
    world.pause("d")
    world.turns()
    assert days(world, "running") == []
    world.pause("d", False)
    quiet(world)
    world.turns()
    assert days(world, "running") == [0]
    world.work()


def test_the_schedule_leaves_out_what_a_backfill_ran(world: World) -> None:
    """S21: catch-up goes on behind the intervals that a backfill has seen to, and skips none."""
    knobs = {"catchup": True, "start_date": FIRST, "max_active_runs": 100}
    world.store(daily(**knobs))
    world.backfill("d", FIRST, FIRST + 2 * DAY)
    world.backfill("d", FIRST + 5 * DAY, FIRST + 6 * DAY)
    for _ in range(12):
        world.turns()
        world.work()
        world.clock.advance(3)
    rows = world.fetch("SELECT run_type, logical_date FROM dag_run ORDER BY logical_date")
    assert [(row.logical_date - FIRST) // DAY for row in rows] == list(range(10))
    kinds = [row.run_type == "backfill" for row in rows]
    assert kinds == [True, True, True, False, False, True, True, False, False, False]


@pytest.mark.parametrize("schedule", [None, "@once", "@continuous"])
def test_without_intervals_there_is_nothing_to_backfill(world: World, schedule: Any) -> None:
    world.store(dag("d", task("a"), schedule=schedule))
    with pytest.raises(RoostException, match="there are no intervals to backfill"):
        world.backfill("d", FIRST, FIRST + DAY)


def test_a_timetable_of_the_users_own_cannot_be_asked(world: World) -> None:
    own = SerializedTimetable(kind="custom", summary="mine.Workdays")
    world.store(dag("d", task("a"), schedule=own))
    with pytest.raises(RoostException, match=r"a timetable of its own, mine\.Workdays"):
        world.backfill("d", FIRST, FIRST + DAY)


def test_moments_of_a_trigger_timetable_are_backfilled_by_logical_date(world: World) -> None:
    own = SerializedTimetable(
        kind="cron_trigger", crons=("0 0 * * *",), interval_us=DAY, summary="0 0 * * *"
    )
    world.store(dag("d", task("a"), schedule=own))
    quiet(world)
    world.backfill("d", FIRST, FIRST + DAY)
    rows = world.fetch("SELECT logical_date, interval_end FROM dag_run ORDER BY id")
    assert [(row.logical_date - FIRST) // DAY for row in rows] == [0, 1]
    assert [(row.interval_end - FIRST) // DAY for row in rows] == [1, 2]


def test_an_interval_that_is_not_over_is_refused(world: World) -> None:
    world.store(daily())
    with pytest.raises(RoostException, match="is not over before"):
        world.backfill("d", FIRST, MIDNIGHT)


def test_runs_of_a_backfill_wait_for_the_past_in_order(world: World) -> None:
    world.store(daily(tasks=(task("a", depends_on_past=True),)))
    quiet(world)
    world.backfill("d", FIRST, FIRST + 2 * DAY)
    world.turns()
    order = []
    for _ in range(3):
        order += world.work()
        world.turns()
    assert order == ["a", "a", "a"]
    begun = [key for key, _ in world.begun.items()]
    assert [run_id[10:20] for run_id, _ in begun] == ["2026-02-19", "2026-02-20", "2026-02-21"]
