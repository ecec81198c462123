"""Sensors that defer, and the triggers they defer to (S29, N2)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.dag.registry import resolve_trigger
from roost.exceptions import DagError, RoostException
from roost.sensors import DateTimeSensor, FileSensor, TimeDeltaSensor
from roost.support import typedjson
from roost.support.clock import from_us, now_us, to_us
from roost.support.wire import DeferSpec
from roost.triggers import BaseTrigger, DateTimeTrigger, FileTrigger, TimeDeltaTrigger, TriggerEvent
from tests.dag.case import LOGICAL, a_dag, raw, run

FAR = datetime(2100, 1, 1, tzinfo=UTC)


def deferral(task: Any, **changes: Any) -> DeferSpec:
    outcome, _ = run(task, **changes)
    assert outcome.error is None, outcome.error
    assert outcome.defer is not None
    return outcome.defer


def remade(spec: DeferSpec) -> BaseTrigger:
    """The trigger as a runner makes it."""
    kwargs: Any = typedjson.decode(spec.kwargs)
    return resolve_trigger(spec.source, [], None)(**kwargs)


def first_event(trigger: BaseTrigger) -> TriggerEvent:
    async def wait() -> TriggerEvent:
        events = trigger.run()
        event = await anext(events)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        return event

    return asyncio.run(wait())


def test_file_sensor_defers_and_resumes_with_the_files(tmp_path: Path) -> None:
    sensor = FileSensor(
        task_id="f",
        filepath=f"{tmp_path}/{{{{ ds }}}}-*.csv",
        poke_interval=0.01,
        timeout=60,
        dag=a_dag(),
    )
    spec = deferral(sensor)
    assert (spec.lane, spec.next_method, spec.timeout_us) == (
        "poll",
        "execute_complete",
        60 * 10**6,
    )
    trigger = remade(spec)
    assert isinstance(trigger, FileTrigger)
    assert trigger.paths == [f"{tmp_path}/2026-01-31-*.csv"]
    for name in ("2026-01-31-b.csv", "2026-01-31-a.csv", "2026-02-01-a.csv"):
        (tmp_path / name).touch()
    event = first_event(trigger)
    found = [f"{tmp_path}/2026-01-31-{x}.csv" for x in "ab"]
    assert event == TriggerEvent(found)
    resumed = run(sensor, next_method=spec.next_method, next_kwargs=raw({"event": event.payload}))
    assert resumed[1] == {"return_value": found}


def test_file_sensor_does_not_defer_for_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    outcome, values = run(FileSensor(task_id="f", filepath=str(path), dag=a_dag()))
    assert (outcome.kind, values) == ("success", {"return_value": [str(path)]})


def test_file_trigger_waits_for_every_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    trigger = FileTrigger([str(one), str(two)], poke_interval=0.001)

    async def wait() -> TriggerEvent:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(0)
        assert not waiting.done()
        two.touch()
        return await waiting

    assert asyncio.run(wait()).payload == [str(one), str(two)]


@pytest.mark.parametrize(("paths", "interval"), [([], 1), ("", 1), ([3], 1), ("x", 0)])
def test_file_trigger_arguments(paths: Any, interval: float) -> None:
    with pytest.raises(RoostException):
        FileTrigger(paths, interval)


def test_time_delta_sensor_counts_from_the_end_of_the_interval() -> None:
    century = timedelta(days=36525)
    sensor = TimeDeltaSensor(task_id="t", delta=century, dag=a_dag())
    end = from_us(LOGICAL) + timedelta(days=1)
    assert deferral(sensor).due_at == to_us(end + century)
    asked = deferral(sensor, interval_start=None, interval_end=None, run_queued_at=5)
    assert asked.due_at == to_us(from_us(5) + century)


def test_a_moment_that_has_passed_needs_no_wait() -> None:
    sensor = TimeDeltaSensor(task_id="t", delta=1, dag=a_dag())
    assert run(sensor, interval_end=0)[0].kind == "success"
    past = DateTimeSensor(task_id="d", target_time="2020-01-01", dag=a_dag())
    assert run(past)[0].kind == "success"


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        (FAR, FAR),
        ("2100-01-01T02:00:00+02:00", FAR),
        ("2100-01-01", FAR),
        ("{{ macros.ds_add(ds, 36525) }}T00:00:00", datetime(2126, 2, 1, tzinfo=UTC)),
    ],
)
def test_date_time_sensor(target: Any, moment: datetime) -> None:
    spec = deferral(DateTimeSensor(task_id="d", target_time=target, dag=a_dag()))
    assert (spec.lane, spec.due_at) == ("timer", to_us(moment))
    trigger = remade(spec)
    assert isinstance(trigger, DateTimeTrigger)
    assert trigger.due_at == moment


def test_date_time_sensor_names_a_wrong_time() -> None:
    outcome, _ = run(DateTimeSensor(task_id="d", target_time="soon", dag=a_dag()))
    assert "target_time 'soon' is not ISO 8601" in (outcome.error or "")


def test_time_triggers_run_as_plain_coroutines_too() -> None:
    trigger = TimeDeltaTrigger(timedelta(milliseconds=5))
    assert first_event(trigger).payload == trigger.due_at
    assert now_us() >= to_us(trigger.due_at)
    assert first_event(DateTimeTrigger(from_us(0))).payload == from_us(0)


@pytest.mark.parametrize("wrong", [FAR.replace(tzinfo=None), "2026", None])
def test_a_trigger_moment_needs_a_zone(wrong: Any) -> None:
    with pytest.raises(RoostException, match="datetime with a time zone"):
        DateTimeTrigger(wrong)
    with pytest.raises(RoostException, match="timedelta or seconds"):
        TimeDeltaTrigger("1h")  # type: ignore[arg-type]


def test_sensor_knobs_are_checked() -> None:
    with pytest.raises(DagError, match="poke_interval"):
        FileSensor(task_id="f", filepath="x", poke_interval="often")  # type: ignore[arg-type]
