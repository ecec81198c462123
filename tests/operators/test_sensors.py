"""Sensors: how they look, wait in between and give up (S29, D24)."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from roost.exceptions import DagError, FailTask
from roost.sensors import (
    BaseSensorOperator,
    BashSensor,
    DateTimeSensor,
    FileSensor,
    PokeReturnValue,
    PythonSensor,
    TimeDeltaSensor,
    TimeSensor,
)
from roost.support import typedjson
from roost.support.clock import SECOND, from_us, now_us, to_us
from roost.support.wire import DeferSpec, Outcome
from tests.dag.case import FakeSupervisor, a_dag, raw, run

FAR = datetime(2100, 1, 1, tzinfo=UTC)


class Counting(BaseSensorOperator):
    """Finds what it waits for at the given look."""

    def __init__(self, *, at: int, looks: list[int], error: Exception | None = None, **kw: Any):
        super().__init__(**kw)
        self.at, self.looks, self.error = at, looks, error

    def poke(self, context: dict[str, Any]) -> bool | PokeReturnValue:
        self.looks.append(len(self.looks) + 1)
        if self.error is not None:
            raise self.error
        return PokeReturnValue(len(self.looks) >= self.at, {"looks": len(self.looks)})


def counting(at: int = 1, **knobs: Any) -> tuple[Counting, list[int]]:
    looks: list[int] = []
    return Counting(task_id="s", at=at, looks=looks, dag=a_dag(), **knobs), looks


def resumed(task: Any, spec: DeferSpec) -> Outcome:
    """What happens when the wait is over."""
    kwargs: Any = typedjson.decode(spec.next_kwargs)
    given = raw({**kwargs, "event": FAR})
    return run(task, next_method=spec.next_method, next_kwargs=given)[0]


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the task slept, without sleeping; the clock goes on by as much."""
    slept: list[float] = []
    now = now_us()
    monkeypatch.setattr("roost.sensors.base.time.sleep", slept.append)
    monkeypatch.setattr(
        "roost.sensors.base.now_us", lambda: now + round(sum(slept) * SECOND), raising=True
    )
    return slept


def test_s29_a_poking_sensor_sleeps_in_its_process(naps: list[float]) -> None:
    sensor, looks = counting(3, poke_interval=7)
    outcome, values = run(sensor)
    assert (outcome.kind, values) == ("success", {"return_value": {"looks": 3}})
    assert (looks, naps) == ([1, 2, 3], [7.0, 7.0])


def test_d24_a_rescheduled_sensor_waits_in_the_timer_lane() -> None:
    sensor, looks = counting(3, poke_interval=60, mode="reschedule")
    before = now_us()
    outcome, _ = run(sensor)
    for expected in (1, 2):
        spec = outcome.defer
        assert spec is not None
        assert (spec.lane, spec.next_method, spec.timeout_us) == ("timer", "poke_again", None)
        assert looks == list(range(1, expected + 1))
        assert before + 60 * SECOND <= (spec.due_at or 0) <= now_us() + 60 * SECOND
        outcome = resumed(sensor, spec)
    assert (outcome.kind, looks) == ("success", [1, 2, 3])


def test_d24_deferrable_without_a_trigger_is_rescheduled() -> None:
    sensor, _ = counting(2, deferrable=True)
    spec = run(sensor)[0].defer
    assert spec is not None
    assert spec.lane == "timer"
    plain, _ = counting(2)
    assert (plain.deferrable, plain.mode) == (False, "poke")  # core.default_deferrable or not


@pytest.mark.parametrize(("text", "defers"), [("true", True), ("false", False), (None, True)])
def test_d24_the_configuration_decides_where_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, text: str | None, defers: bool
) -> None:
    name = "ROOST__CORE__DEFAULT_DEFERRABLE"
    monkeypatch.delenv(name, raising=False)
    if text is not None:
        monkeypatch.setenv(name, text)
    moment = DateTimeSensor(task_id="d", target_time=FAR, dag=a_dag())
    assert moment.deferrable is defers
    dag = a_dag()
    assert not DateTimeSensor(task_id="p", target_time=FAR, mode="poke", dag=dag).deferrable
    assert DateTimeSensor(
        task_id="t", target_time=FAR, mode="poke", deferrable=True, dag=dag
    ).deferrable
    assert not DateTimeSensor(task_id="f", target_time=FAR, deferrable=False, dag=dag).deferrable


def test_the_time_out_fails_without_another_try(naps: list[float]) -> None:
    sensor, looks = counting(99, poke_interval=4, timeout=10, retries=3)
    outcome, _ = run(sensor)
    assert (outcome.kind, outcome.retryable) == ("failed", False)
    assert "SensorTimeout: waited for 10 s in vain" in (outcome.error or "")
    assert naps == pytest.approx([4, 4, 2])  # one last look when the time is up
    assert len(looks) == 4


def test_the_time_out_counts_over_all_reschedules() -> None:
    sensor, _ = counting(99, mode="reschedule", timeout=10)
    began = now_us() - 11 * SECOND
    kwargs = raw({"event": FAR, "began": began, "looks": 5})
    outcome, _ = run(sensor, next_method="poke_again", next_kwargs=kwargs)
    assert "SensorTimeout" in (outcome.error or "")
    kwargs = raw({"event": FAR, "began": now_us(), "looks": 5})
    assert run(sensor, next_method="poke_again", next_kwargs=kwargs)[0].kind == "deferred"


@pytest.mark.parametrize("knob", ["soft_fail", "never_fail"])
def test_soft_fail_is_skipped_when_the_time_is_up(naps: list[float], knob: str) -> None:
    assert naps == []
    sensor, _ = counting(99, poke_interval=4, timeout=1, **{knob: True})
    assert run(sensor)[0].kind == "skipped"


@pytest.mark.parametrize(
    ("knobs", "error", "kind", "looks"),
    [
        ({}, ValueError("x"), "failed", 1),
        ({"soft_fail": True}, ValueError("x"), "failed", 1),
        ({"soft_fail": True}, FailTask("x"), "skipped", 1),
        ({"never_fail": True}, ValueError("x"), "skipped", 1),
        ({"silent_fail": True, "timeout": 1}, ValueError("x"), "failed", 2),
        ({}, FailTask("x"), "failed", 1),
    ],
)
def test_errors_while_looking(
    naps: list[float], knobs: dict[str, Any], error: Exception, kind: str, looks: int
) -> None:
    assert naps == []
    sensor, seen = counting(error=error, poke_interval=4, **knobs)
    outcome, _ = run(sensor)
    assert (outcome.kind, len(seen)) == (kind, looks)


def test_exponential_backoff_has_a_cap(naps: list[float]) -> None:
    sensor, _ = counting(6, poke_interval=2, exponential_backoff=True, max_wait=10)
    assert run(sensor)[0].kind == "success"
    assert naps == [2, 4, 8, 10, 10]
    long, _ = counting(1, poke_interval=3600, exponential_backoff=True)
    assert long.next_interval(5000) == timedelta(days=365)


def test_a_deferrable_sensor_says_what_its_time_out_means() -> None:
    hard = run(DateTimeSensor(task_id="d", target_time=FAR, timeout=5, dag=a_dag()))[0].defer
    soft = DateTimeSensor(task_id="d", target_time=FAR, timeout=5, soft_fail=True, dag=a_dag())
    found = run(soft)[0].defer
    assert hard is not None
    assert found is not None
    assert (hard.on_timeout, found.on_timeout) == ("fail", "skip")
    assert hard.timeout_us == found.timeout_us == 5 * SECOND


def test_wrong_knobs_are_named() -> None:
    with pytest.raises(DagError, match="mode must be 'poke' or 'reschedule', not 'smart'"):
        counting(mode="smart")
    with pytest.raises(DagError, match="soft_fail or never_fail"):
        counting(soft_fail=True, never_fail=True)
    with pytest.raises(DagError, match="python_callable must be a function"):
        PythonSensor(task_id="p", python_callable=3)  # type: ignore[arg-type]
    with pytest.raises(DagError, match=r"target_time must be a datetime.time"):
        TimeSensor(task_id="p", target_time="12:00")  # type: ignore[arg-type]


def test_python_sensor_gives_context_and_keeps_a_value() -> None:
    def ready(ds: str, wanted: str) -> PokeReturnValue:
        return PokeReturnValue(ds == wanted, [ds])

    sensor = PythonSensor(
        task_id="p", python_callable=ready, op_kwargs={"wanted": "{{ ds }}"}, dag=a_dag()
    )
    assert run(sensor)[1] == {"return_value": ["2026-01-31"]}

    def after(prev_start_date_success: datetime | None, templates_dict: dict[str, str]) -> bool:
        return prev_start_date_success is None and templates_dict == {"day": "2026-01-31"}

    named = PythonSensor(
        task_id="n", python_callable=after, templates_dict={"day": "{{ ds }}"}, dag=a_dag()
    )
    assert run(named)[0].kind == "success"
    plain = PythonSensor(task_id="q", python_callable=lambda: 1, dag=a_dag())
    assert run(plain)[1] == {}


def test_bash_sensor(naps: list[float], tmp_path: Path) -> None:
    flag = tmp_path / "n"
    command = f"echo x >> {flag}; test $(wc -l < {flag}) -ge 3"
    assert run(BashSensor(task_id="b", bash_command=command, dag=a_dag()))[0].kind == "success"
    assert len(naps) == 2
    picky = BashSensor(task_id="c", bash_command="exit 4", retry_exit_code=3, dag=a_dag())
    assert "exit code 4" in (run(picky)[0].error or "")


def test_file_sensor_pokes_and_reads_its_connection(naps: list[float], tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    there = FakeSupervisor()
    sensor = FileSensor(
        task_id="f", filepath="*.csv", fs_conn_id="fs", deferrable=False, dag=a_dag()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROOST_CONN_FS", f'{{"conn_type": "fs", "extra": {{"path": "{tmp_path}"}}}}')
        assert run(sensor, there)[1] == {"return_value": [f"{tmp_path}/a.csv"]}
    assert naps == []


def test_time_sensor_waits_for_a_time_of_the_day_it_runs_on() -> None:
    zone = ZoneInfo("America/New_York")
    dag = a_dag(start_date=datetime(2026, 1, 1, tzinfo=zone))
    start = to_us(datetime(2100, 6, 1, 2, tzinfo=UTC))  # still the 31st of May in New York
    sensor = TimeSensor(task_id="t", target_time=time(23, 30), dag=dag)
    spec = run(sensor, start_date=start)[0].defer
    assert spec is not None
    assert spec.due_at == to_us(datetime(2100, 5, 31, 23, 30, tzinfo=zone))
    assert run(sensor, start_date=0)[0].kind == "success"


def test_moments_can_be_poked_for(naps: list[float]) -> None:
    soon = from_us(now_us()) + timedelta(seconds=90)
    sensor = DateTimeSensor(task_id="d", target_time=soon, mode="poke", timeout=30, dag=a_dag())
    assert "SensorTimeout" in (run(sensor)[0].error or "")
    assert sum(naps) == pytest.approx(30, abs=1)
    past = TimeDeltaSensor(task_id="p", delta=1, mode="reschedule", dag=a_dag())
    assert run(past)[0].kind == "success"
