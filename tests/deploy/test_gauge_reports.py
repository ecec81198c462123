"""Gauges against the database they are about, on both kinds (complaints row 10: #26601, #22939)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from roost.models.engine import open_engine, transact
from roost.scheduler.chores.gauges import report_gauges
from roost.support.clock import SECOND, now_us
from roost.support.stats import NullStats, Reading
from tests.cli.seed import Seed, chain


class Told(NullStats):
    """Keeps the last report as ``{name.labels: value}``; None before one and after forgetting."""

    last: dict[str, float] | None = None

    @property
    def reporting(self) -> bool:  # type: ignore[override]
        return self.last is not None

    def report(self, readings: Iterable[Reading]) -> None:
        readings = list(readings)
        super().report(readings)
        self.last = {".".join([name, *labels.values()]): value for name, value, labels in readings}

    def forget(self) -> None:
        self.last = None


@pytest.fixture
def seed(database_url: str, tmp_path: Path) -> Iterator[Seed]:
    seed = Seed(database_url, tmp_path)
    seed.dags(chain("etl", "a", "b", "c", "d"))
    yield seed


def report(seed: Seed, told: Told, job_id: int) -> dict[str, float]:
    engine = open_engine(seed.url)
    try:
        transact(
            engine,
            lambda tx: report_gauges(
                tx, stats=told, job_id=job_id, parallelism=8, executable=3,
                starving={"default_pool": 2},
            ),
        )  # fmt: skip
    finally:
        engine.dispose()
    return told.last or {}


def test_gauges_are_what_the_database_holds(seed: Seed) -> None:
    me = seed.job("scheduler")
    run = seed.run("etl", "r")
    seed.instance(run, "a", state="running", pool_slots=2)
    seed.instance(run, "b", state="queued")
    ti = seed.instance(run, "c", state="deferred")
    seed.instance(run, "d", state="scheduled", next_method="execute_complete")
    triggerer = seed.job("triggerer", detail=msgspec.json.encode({"capacity": 10}).decode())
    seed.trigger(ti, run, job_id=triggerer)

    told = Told()
    report(seed, told, me)
    found = report(seed, told, me)  # the first one names what it takes back, too
    assert {name: value for name, value in found.items() if name.startswith("ti.")} == {
        "ti.running.default.etl.a": 1,
        "ti.queued.default.etl.b": 1,
        "ti.deferred.default.etl.c": 1,
        "ti.scheduled.default.etl.d": 1,
    }
    assert found["executor.open_slots"] == 7
    assert found["executor.running_tasks"] == found["executor.queued_tasks"] == 1
    assert found["scheduler.tasks.executable"] == 3
    assert found["scheduler.tasks.starving"] == 2
    assert found["scheduler.dagruns.running"] == 1
    assert found["dagbag_size"] == 1
    assert found["pool.running_slots.default_pool"] == 2
    assert found["pool.open_slots.default_pool"] == 128 - 3
    assert found["triggers.running.here"] == 1
    assert found["triggerer.capacity_left.here"] == 9


def test_one_scheduler_reports_and_the_others_forget(seed: Seed) -> None:
    first, second = seed.job("scheduler"), seed.job("scheduler")
    told = Told()
    assert report(seed, told, first)
    assert report(seed, told, second) == {}
    seed.sql("UPDATE job SET ended_at = :now WHERE id = :first", now=now_us(), first=first)
    assert report(seed, told, second)


def test_who_takes_over_takes_back_the_numbers_of_a_killed_reporter(seed: Seed) -> None:
    """A SIGKILLed scheduler zeroes nothing; its last gauges stand until somebody does."""
    me = seed.job("scheduler")
    live = seed.run("etl", "live")
    seed.instance(live, "a", state="running")
    seed.dags(chain("just_ended", "x"), chain("long_gone", "y"), fileloc="others.py")
    seed.run("just_ended", "r", state="success", date=now_us() - 10 * SECOND)
    seed.run("long_gone", "r", state="success")
    gone = seed.job("triggerer", detail='{"capacity":10}')
    seed.sql("UPDATE job SET ended_at = :now WHERE id = :gone", now=now_us(), gone=gone)

    told = Told()
    first = report(seed, told, me)
    for state in ("scheduled", "queued", "running", "deferred"):
        assert first[f"ti.{state}.default.just_ended.x"] == 0
        assert first[f"ti.{state}.default.etl.b"] == 0
    assert first["ti.running.default.etl.a"] == 1
    assert first["triggers.running.here"] == first["triggerer.capacity_left.here"] == 0
    assert not any("long_gone" in name for name in first)

    second = report(seed, told, me)
    assert [name for name in second if name.startswith("ti.")] == ["ti.running.default.etl.a"]
    assert "triggers.running.here" not in second
