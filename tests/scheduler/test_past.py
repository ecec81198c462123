"""Tasks that look at the previous run: depends_on_past and wait_for_downstream (S76, S89)."""

from __future__ import annotations

from datetime import UTC, datetime

from roost.support.clock import to_us
from tests.scheduler.hands import DAY, World, dag, failed, ok, skipped, task

_START = to_us(datetime(2026, 2, 25, tzinfo=UTC))


def _three_days(world: World, **knobs: bool) -> list[int]:
    """Runs of three past days: a looks at its past, b follows a; gives their keys."""
    made = dag(
        "d", task("a", "b", **knobs), task("b"), schedule="@daily", start_date=_START,
        end_date=_START + 2 * DAY, catchup=True,
    )  # fmt: skip
    world.store(made)
    world.turns()
    return [row.id for row in world.fetch("SELECT id FROM dag_run ORDER BY logical_date")]


def _in_flight(world: World) -> list[tuple[int, str]]:
    rows = world.fetch("SELECT dag_run_id, task_id FROM task_instance WHERE state = 'queued'")
    return sorted((row.dag_run_id, row.task_id) for row in rows)


def test_the_first_run_is_exempt_and_the_others_wait_s89(world: World) -> None:
    first, second, _third = _three_days(world, depends_on_past=True)
    assert _in_flight(world) == [(first, "a")]
    world.work(a=ok())
    assert _in_flight(world) == [(first, "b"), (second, "a")]


def test_a_failed_past_holds_every_later_run_s89(world: World) -> None:
    first, second, third = _three_days(world, depends_on_past=True)
    world.work(a=failed())
    world.turns()
    assert _in_flight(world) == []
    assert world.run_state(first) == "failed"
    assert world.run_state(second) == world.run_state(third) == "running"


def test_a_skipped_past_counts_as_success_s76(world: World) -> None:
    _first, second, _third = _three_days(world, depends_on_past=True)
    world.work(a=skipped())
    assert (second, "a") in _in_flight(world)


def test_wait_for_downstream_waits_for_the_children_too_s89(world: World) -> None:
    first, second, _third = _three_days(world, depends_on_past=True, wait_for_downstream=True)
    world.work(a=ok())
    assert _in_flight(world) == [(first, "b")]
    world.work(b=ok())
    assert (second, "a") in _in_flight(world)


def test_a_restart_forgets_nothing_s89(world: World) -> None:
    first, _second, _third = _three_days(world, depends_on_past=True)
    world.schedulers[0].forget()
    world.turns()
    assert _in_flight(world) == [(first, "a")]
