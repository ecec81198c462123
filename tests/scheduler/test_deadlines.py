"""Deadlines of runs: an alarm each, told of once, and never after the run has ended (H22)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.dag.model import SerializedDeadline
from roost.support.clock import SECOND
from tests.scheduler.hands import DAY, START, World, dag, failed, ok, task


def limit(reference: Any = "queued_at", seconds: float = 60, **more: Any) -> SerializedDeadline:
    return SerializedDeadline(reference=reference, interval_us=round(seconds * SECOND), **more)


@pytest.fixture(autouse=True)
def the_databases_clock(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Runs are stamped by the database's clock: let queued_at be the world's moment."""

    def trigger(dag_id: str, run_id: str | None = None, *, delay_s: float = 0) -> int:
        key = World.trigger(world, dag_id, run_id, delay_s=delay_s)
        world.execute("UPDATE dag_run SET queued_at = :n WHERE id = :k", n=world.clock.now, k=key)
        return key

    monkeypatch.setattr(world, "trigger", trigger)


def test_h22_a_run_that_has_not_ended_alerts_once(world: World) -> None:
    """H22: by an alarm at that very moment, once, while the run goes on."""
    world.store(dag("d", task("a"), deadlines=[limit()]))
    world.trigger("d")
    report = world.turns()
    assert report.next_due == START + 60 * SECOND
    assert report.deadlines == {} or report.deadlines["created"] in (0, 1)
    world.clock.advance(59)
    world.turns()
    assert world.calls() == []
    world.clock.advance(1)
    assert world.turn().deadlines["missed"] == 1
    world.claim()
    (spec,) = world.called.values()
    assert (spec.kind, spec.position, spec.state) == ("deadline", 0, "running")
    assert msgspec.json.decode(spec.detail) == {"due_at": START + 60 * SECOND}
    world.calls()
    world.clock.advance(3600)
    world.turns()
    assert world.calls() == []
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    assert world.run_state(world.fetch("SELECT id FROM dag_run")[0].id) == "success"


def test_h22_each_of_several_alerts_once(world: World) -> None:
    """H22: a later deadline does not tell of an earlier one again."""
    world.store(dag("d", task("a"), deadlines=[limit(), limit(seconds=120)]))
    world.trigger("d")
    world.turns()
    positions = []
    for _ in range(3):
        world.clock.advance(61)
        world.turns()
        world.claim()
        positions.append([spec.position for spec in world.called.values()])
        world.calls()
    assert positions == [[0], [1], []]
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()


def test_h22_a_run_that_ended_in_time_never_alerts(world: World) -> None:
    """H22: not even when it is cleared long after."""
    world.store(dag("d", task("a"), deadlines=[limit(), limit(seconds=120)]))
    key = world.trigger("d")
    assert world.turn().deadlines["created"] == 2
    world.turns()
    (one,) = world.claim()
    world.end(one, ok())
    assert world.turn().deadlines["not_missed"] == 2
    world.clock.advance(3600)
    world.turns()
    assert world.calls() == []
    rows = world.fetch("SELECT met_at, missed_at FROM deadline WHERE dag_run_id = :k", k=key)
    assert [(row.met_at is None, row.missed_at is None) for row in rows] == [(False, True)] * 2


def test_h22_a_queued_run_alerts_too(world: World) -> None:
    """H22: a run that waits for room is late as well."""
    world.store(dag("d", task("a"), deadlines=[limit()], max_active_runs=1))
    world.trigger("d")
    world.turns()
    world.clock.advance(30)
    second = world.trigger("d")
    world.turns()
    world.claim()
    world.clock.advance(60)
    world.turns()
    world.claim()
    assert sorted(spec.state for spec in world.called.values()) == ["queued", "running"]
    world.calls()
    assert world.run_state(second) == "queued"
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()
    world.work()


@pytest.mark.parametrize(
    ("reference", "more", "due_s"),
    [
        ("logical_date", {}, 10),
        ("queued_at", {}, 60 + 10),
        ("fixed", {"at": START + DAY}, 86_400 + 10),
    ],
)
def test_h22_references(world: World, reference: str, more: dict[str, Any], due_s: int) -> None:
    """H22: logical date, queue time, a fixed moment; the interval is added."""
    world.store(dag("d", task("a"), deadlines=[limit(reference, 10, **more)]))
    key = world.trigger("d")
    at = START + 60 * SECOND
    world.execute("UPDATE dag_run SET logical_date = :l, queued_at = :q", l=START, q=at)
    world.turns()
    (row,) = world.fetch("SELECT due_at FROM deadline WHERE dag_run_id = :k", k=key)
    assert row.due_at == START + due_s * SECOND
    world.work()


def test_h22_average_runtime_of_the_last_ten_successes(world: World) -> None:
    """H22: there is none before the first success; failed runs do not count."""
    world.store(dag("d", task("a"), deadlines=[limit("average", 5)]))
    for number, took in enumerate((1000, *[30] * 9, 50)):
        key = world.trigger("d", f"r{number}")
        world.turns()
        world.work(a=failed() if number == 0 else ok())
        world.execute(
            "UPDATE dag_run SET start_date = 0, end_date = :e WHERE id = :k",
            e=took * SECOND,
            k=key,
        )
    assert not world.fetch("SELECT 1 FROM deadline WHERE dag_run_id <= 2")
    key = world.trigger("d")
    world.turns()
    (row,) = world.fetch("SELECT due_at FROM deadline WHERE dag_run_id = :k", k=key)
    assert row.due_at == world.clock.now + (32 + 5) * SECOND
    world.work()


def test_h22_an_alarm_outlives_its_scheduler(world: World) -> None:
    """H22: what is stored is due, whoever takes the run over."""
    world.store(dag("d", task("a"), deadlines=[limit()]))
    world.trigger("d")
    world.turns()
    world.schedulers[0].forget()
    world.turns()
    world.clock.advance(61)
    world.turns()
    assert world.calls() == ["deadline deadline running the deadline was missed"]
    world.end_all(dict.fromkeys(world.held, ok()))
    world.turns()


def test_h22_no_date_no_deadline(world: World) -> None:
    """H22: a run without a logical date has none that counts from it."""
    world.store(dag("d", task("a"), deadlines=[limit("logical_date")]))
    world.trigger("d")
    world.execute("UPDATE dag_run SET logical_date = NULL")
    world.turns()
    assert not world.fetch("SELECT 1 FROM deadline")
    world.work()
