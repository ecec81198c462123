"""Scheduled runs: every interval once, at its moment, whatever happened meanwhile (S12, S21)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roost.support.clock import SECOND, from_us, to_us
from tests.scheduler.hands import DAY, START, World, dag, ok, task

_MIDNIGHT = to_us(datetime(2026, 3, 1, tzinfo=UTC))


def logical_dates(world: World, dag_id: str = "d") -> list[str]:
    rows = world.fetch("SELECT logical_date FROM dag_run WHERE dag_id = :d ORDER BY id", d=dag_id)
    return [from_us(row.logical_date).strftime("%m-%dT%H:%M") for row in rows]


def store(world: World, schedule: Any, **knobs: Any) -> None:
    world.store(dag("d", task("a", empty=True), schedule=schedule, **knobs))


def test_catchup_creates_every_interval_since_the_start_s21(world: World) -> None:
    store(world, "@daily", start_date=_MIDNIGHT - 4 * DAY, catchup=True)
    world.turns()
    assert logical_dates(world) == ["02-25T00:00", "02-26T00:00", "02-27T00:00", "02-28T00:00"]
    assert {row.state for row in world.fetch("SELECT state FROM dag_run")} == {"success"}
    assert world.turn().next_due == _MIDNIGHT + DAY


def test_without_catchup_only_the_newest_missed_is_created_s21(world: World) -> None:
    store(world, "@daily", start_date=_MIDNIGHT - 4 * DAY)
    world.turns()
    assert logical_dates(world) == ["02-28T00:00"]
    world.clock.advance(5 * 86_400)  # the scheduler was away
    world.turns()
    assert logical_dates(world) == ["02-28T00:00", "03-05T00:00"]


def test_a_run_is_created_when_its_interval_ends_and_not_before(world: World) -> None:
    store(world, "0 13 * * *", start_date=_MIDNIGHT)
    world.clock.advance(86_400)
    due = world.turns().next_due
    assert due is not None
    world.clock.now = due - 1
    world.turns()
    before = logical_dates(world)
    world.clock.now = due
    world.turns()
    assert len(logical_dates(world)) == len(before) + 1
    (row,) = world.fetch("SELECT * FROM dag_run ORDER BY id DESC LIMIT 1")
    assert (row.run_after, row.interval_end) == (due, due)
    assert row.run_id == f"scheduled__{from_us(row.logical_date).isoformat()}"


def test_once_means_once(world: World) -> None:
    store(world, "@once", start_date=_MIDNIGHT)
    world.turns()
    world.clock.advance(10 * 86_400)
    world.schedulers[0].forget()
    world.turns()
    assert logical_dates(world) == ["03-01T00:00"]
    assert world.turn().next_due is None


def test_none_means_by_hand_only(world: World) -> None:
    store(world, None, start_date=_MIDNIGHT)
    world.clock.advance(10 * 86_400)
    assert world.turns().next_due is None
    assert logical_dates(world) == []


def test_a_timedelta_keeps_its_step(world: World) -> None:
    store(world, timedelta(hours=5), start_date=_MIDNIGHT, catchup=True)
    world.turns()
    assert logical_dates(world) == ["03-01T00:00", "03-01T05:00"]
    world.clock.advance(3 * 3600)
    world.turns()
    assert logical_dates(world)[2:] == ["03-01T10:00"]


def test_nothing_is_created_after_the_end_date(world: World) -> None:
    store(
        world, "@daily", start_date=_MIDNIGHT - 3 * DAY, end_date=_MIDNIGHT - 2 * DAY, catchup=True
    )
    world.clock.advance(86_400)
    world.turns()
    assert logical_dates(world) == ["02-26T00:00", "02-27T00:00"]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # New York: 02:30 does not exist on 8 March, 01:30 comes twice on 1 November (H14).
        ("2026-03-06", ["03-06T07:30", "03-07T07:30", "03-08T07:00", "03-09T06:30"]),
        ("2026-10-30", ["10-30T06:30", "10-31T06:30", "11-01T07:30", "11-02T07:30"]),
    ],
)
def test_days_that_change_the_clock_have_one_run_each_h14(
    world: World, day: str, expected: list[str]
) -> None:
    start = to_us(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    world.clock.now = start
    store(world, "30 2 * * *", timezone="America/New_York", start_date=start, catchup=True)
    for _ in range(5 * 24 * 4):
        world.clock.advance(900)
        world.turn()
    world.turns()
    assert logical_dates(world) == expected


def test_a_clock_that_steps_back_doubles_nothing_invariant_s12(world: World) -> None:
    store(world, "@hourly", start_date=START - 5 * 3600 * SECOND, catchup=True)
    world.turns()
    before = logical_dates(world)
    assert len(before) == 5
    world.clock.advance(-4 * 3600)
    world.schedulers[0].forget()
    world.turns()
    assert logical_dates(world) == before
    world.clock.advance(5 * 3600)
    world.turns()
    assert len(logical_dates(world)) == 6


def test_no_run_of_a_paused_dag_is_created_invariant_s13(world: World) -> None:
    store(world, "@daily", start_date=_MIDNIGHT - 2 * DAY, catchup=True)
    world.pause("d")
    world.turns()
    assert logical_dates(world) == []
    world.clock.advance(86_400)
    world.pause("d", False)
    world.turns()
    assert logical_dates(world) == ["02-27T00:00", "02-28T00:00", "03-01T00:00"]


def test_catchup_creates_no_more_runs_than_may_be_active(world: World) -> None:
    world.store(
        dag(
            "d", task("a"), schedule="@daily", start_date=_MIDNIGHT - 6 * DAY, catchup=True,
            max_active_runs=2,
        )
    )  # fmt: skip
    world.turns()
    dates = []
    for _ in range(6):
        dates += [one.logical_date for one in world.claim()]
        assert 1 <= len(world.held) <= 2
        world.end(next(iter(world.held)), ok())
        world.turns()
        world.clock.advance(2)
        world.turns()
        world.check()
    assert len(set(dates)) == len(dates) == 6
    assert dates == sorted(dates, key=lambda date: date or 0)


def test_dags_that_must_wait_do_not_hide_those_that_may_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.scheduler.steps.create_runs._BATCH", 2)
    early, late = _MIDNIGHT - 9 * DAY, _MIDNIGHT - DAY
    for n in range(4):
        world.store(
            dag(
                f"full{n}", task("a"), schedule="@daily", start_date=early, catchup=True,
                max_active_runs=1,
            )
        )  # fmt: skip
    world.turns()
    world.store(dag("new", task("a"), schedule="@daily", start_date=late, catchup=True))
    world.clock.advance(2)
    world.turns()
    assert logical_dates(world, "new") == ["02-28T00:00"]


def test_a_dag_that_is_gone_is_scheduled_no_more(world: World) -> None:
    store(world, "@hourly", start_date=START - 3600 * SECOND, catchup=True)
    world.turns()
    world.execute("UPDATE dag SET is_active = :f", f=False)
    world.clock.advance(7200)
    world.turns()
    assert len(logical_dates(world)) == 1


def test_a_new_version_goes_on_where_the_old_one_was(world: World) -> None:
    store(world, "@hourly", start_date=START - 3600 * SECOND, catchup=True)
    world.turns()
    world.clock.advance(1800)
    store(world, "*/30 * * * *", start_date=START - 3600 * SECOND, catchup=True)
    world.turns()
    dates = logical_dates(world)
    assert dates[0] == "03-01T11:00"
    assert len(set(dates)) == len(dates)


def test_a_task_is_skipped_outside_its_own_dates(world: World) -> None:
    """Its reason is in the log, and what comes after it follows its rule."""
    world.store(
        dag(
            "d",
            task("later", "after", start_date=START + DAY),
            task("earlier", "always", end_date=START - DAY),
            task("now", start_date=START, end_date=START + DAY),
            task("after"),
            task("always", trigger_rule="all_done"),
        )
    )
    world.trigger("d")
    world.turns()
    assert sorted(world.work()) == ["always", "now"]
    assert world.states() == {
        "later": "skipped",
        "earlier": "skipped",
        "now": "success",
        "after": "skipped",
        "always": "success",
    }
    assert world.reasons("skip")[:2] == [
        "its start_date is after the logical date",
        "its end_date is before the logical date",
    ]
