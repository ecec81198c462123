"""Sensors that defer, and the triggers they defer to (S29, N2)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from roost.dag.registry import resolve_trigger
from roost.exceptions import DagError, RoostException
from roost.sensors import (
    CronSensor,
    DateTimeSensor,
    DateTimeSensorAsync,
    FileSensor,
    TimeDeltaSensor,
    TimeDeltaSensorAsync,
    TimeSensorAsync,
)
from roost.support import typedjson
from roost.support.clock import from_us, now_us, to_us
from roost.support.wire import DeferSpec
from roost.triggers import (
    BaseTrigger,
    CronTrigger,
    DateTimeTrigger,
    FileTrigger,
    TimeDeltaTrigger,
    TriggerEvent,
)
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


def test_a_relative_path_is_that_of_the_worker_wherever_the_triggerer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "he[re]", tmp_path / "else"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    sensor = FileSensor(task_id="f", filepath="in-*.csv", poke_interval=0.01, dag=a_dag())
    trigger = remade(deferral(sensor))
    monkeypatch.chdir(elsewhere)
    (elsewhere / "in-0.csv").touch()
    (here / "in-1.csv").touch()
    assert first_event(trigger) == TriggerEvent([f"{here}/in-1.csv"])


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
        TimeDeltaTrigger("1h")


def test_sensor_knobs_are_checked() -> None:
    with pytest.raises(DagError, match="poke_interval"):
        FileSensor(task_id="f", filepath="x", poke_interval="often")  # type: ignore[arg-type]
    with pytest.raises(DagError, match="poke_interval must not be negative, as -5 is"):
        FileSensor(task_id="f", filepath="x", poke_interval=-5)


def test_h14_a_cron_is_waited_for_as_a_schedule_of_it_would_run() -> None:
    berlin = "Europe/Berlin"
    before_gap = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)  # 01:00; 02:30 does not exist that day
    assert CronTrigger("30 2 * * *", berlin, before_gap).moment == before_gap + timedelta(hours=1)
    first = CronTrigger("30 2 * * *", berlin, datetime(2026, 10, 25, tzinfo=UTC)).moment
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # the first of two
    assert CronTrigger("30 2 * * *", berlin, first).moment == first + timedelta(days=1, hours=1)
    assert CronTrigger("@hourly", berlin, first).moment == datetime(2026, 10, 25, 1, tzinfo=UTC)
    assert CronTrigger("* * * * * */2").moment > from_us(now_us())


def test_a_cron_trigger_is_stored_as_the_moment_it_amounts_to() -> None:
    trigger = CronTrigger("0 0 1 1 *", "Europe/Berlin", FAR)
    kind, kwargs = trigger.serialize()
    assert (kind, kwargs) == ("roost.triggers.DateTimeTrigger", {"moment": trigger.moment})
    assert DateTimeTrigger(**kwargs).due_at == trigger.due_at


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("every day",), "'every day' has 2 fields"),
        (("0 0 30 2 *",), "never occurs"),
        (("@once",), "needs a cron expression"),
        (("* * * * *", "Mars/Base"), "unknown time zone 'Mars/Base'"),
        (("* * * * *", "UTC", datetime(2026, 1, 1)), "datetime with a time zone"),  # noqa: DTZ001
    ],
)
def test_a_wrong_cron_is_one_line(arguments: Any, said: str) -> None:
    with pytest.raises(RoostException, match=said) as caught:
        CronTrigger(*arguments)
    assert "\n" not in str(caught.value)


def test_cron_sensor_waits_for_the_moment_after_its_start() -> None:
    zone = ZoneInfo("Asia/Kolkata")
    dag = a_dag(start_date=datetime(2026, 1, 1, tzinfo=zone))
    sensor = CronSensor(task_id="c", cron="0 {{ 6 }} * * *", dag=dag)
    start = to_us(datetime(2100, 6, 1, 0, 30, tzinfo=UTC))  # 06:00 in Kolkata
    spec = deferral(sensor, start_date=start)
    assert spec.lane == "timer"
    assert spec.due_at == to_us(datetime(2100, 6, 2, 6, tzinfo=zone))
    # A look long after the start finds that the moment has come, not the next one.
    assert run(sensor, start_date=0)[0].kind == "success"
    chosen = CronSensor(
        task_id="a", cron="@daily", timezone="UTC", after="{{ macros.ds_add(ds, 36525) }}", dag=dag
    )
    assert deferral(chosen).due_at == to_us(datetime(2126, 2, 2, tzinfo=UTC))
    wrong, _ = run(CronSensor(task_id="w", cron="@daily", after="soon", dag=dag))
    assert "after 'soon' is not ISO 8601" in (wrong.error or "")


def test_d24_the_async_names_defer_whatever_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST__CORE__DEFAULT_DEFERRABLE", "false")
    dag = a_dag()
    assert not DateTimeSensor(task_id="plain", target_time=FAR, dag=dag).deferrable
    sensors = [
        DateTimeSensorAsync(task_id="a", target_time=FAR, dag=dag),
        TimeDeltaSensorAsync(task_id="b", delta=timedelta(days=36525), dag=dag),
        TimeSensorAsync(task_id="c", target_time=time(23, 59), dag=dag),
    ]
    far = to_us(datetime(2100, 6, 1, tzinfo=UTC))
    assert [deferral(sensor, start_date=far).lane for sensor in sensors] == ["timer"] * 3
    assert not DateTimeSensorAsync(
        task_id="d", target_time=FAR, deferrable=False, dag=dag
    ).deferrable
