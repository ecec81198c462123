"""Runs that start and await runs, on the simulation's clock (S95, S96, S98, D24)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roost.dag import DAG, Param
from roost.operators import (
    EmptyOperator,
    PythonOperator,
    SubDagOperator,
    TriggerDagRunOperator,
)
from roost.sensors import ExternalTaskSensor
from roost.testing import Simulation, SimulationStuck, Stub

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_dag(dag_id: str, schedule: Any = None, **arguments: Any) -> DAG:
    return DAG(dag_id, schedule=schedule, start_date=START, **arguments)


def with_subdag(schedule: Any = "@daily", **arguments: Any) -> DAG:
    """A DAG ``p`` whose task ``sub`` holds two tasks, the first of pool ``one`` as it is itself."""
    parent = a_dag("p")
    child = a_dag("p.sub", schedule)
    first = PythonOperator(task_id="first", python_callable=lambda: 1, pool="one", dag=child)
    first >> PythonOperator(task_id="second", python_callable=lambda: 2, dag=child)
    sub = SubDagOperator(task_id="sub", subdag=child, pool="one", dag=parent, **arguments)
    sub >> EmptyOperator(task_id="after", dag=parent)
    return parent


@pytest.fixture
def simulate() -> Iterator[Any]:
    """Makes simulations and closes them."""
    made: list[Simulation] = []

    def make(*dags: DAG, **options: Any) -> Simulation:
        made.append(Simulation(dags, start=START, pools={"one": 1}, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_s95_s98_a_subdag_runs_as_a_run_of_its_own(simulate: Any) -> None:
    world = simulate(with_subdag(), stubs={"first": Stub(takes=timedelta(seconds=3600))})
    run = world.trigger("p", run_id="r")
    world.run()
    assert run.states == {"sub": "success", "after": "success"}
    assert run.end_date == START + timedelta(hours=1)
    (child,) = world.runs("p.sub")
    assert (child.run_id, child.run_type, child.state) == ("r", "manual", "success")
    assert child.logical_date == run.logical_date
    assert child.data_interval == run.data_interval


def test_s95_a_failed_subdag_fails_its_operator(simulate: Any) -> None:
    world = simulate(with_subdag(), stubs={"second": Stub(raises=ValueError("no"))})
    run = world.trigger("p")
    world.run()
    assert run.states == {"sub": "failed", "after": "upstream_failed"}
    assert world.runs("p.sub")[0].states == {"first": "success", "second": "failed"}


def test_s95_a_retry_goes_on_with_what_failed(simulate: Any) -> None:
    stubs = {"second": Stub(raises=ValueError("no"), times=1), "first": Stub()}
    world = simulate(with_subdag(retries=1, retry_delay=60), stubs=stubs)
    run = world.trigger("p")
    world.run()
    assert run.states == {"sub": "success", "after": "success"}
    (child,) = world.runs("p.sub")
    assert (child["first"].tries, child["second"].tries) == (1, 2)


@pytest.mark.parametrize("schedule", [None, "@once"])
def test_s96_a_subdag_without_a_schedule_succeeds_without_doing_anything(
    simulate: Any, schedule: str | None
) -> None:
    world = simulate(with_subdag(schedule))
    run = world.trigger("p")
    world.run()
    assert run.states == {"sub": "success", "after": "success"}
    assert world.runs("p.sub") == []


def test_s96_a_subdag_is_never_scheduled_by_itself(simulate: Any) -> None:
    world = simulate(with_subdag("@hourly"))
    world.advance(timedelta(days=2))
    assert world.runs("p.sub") == []


def test_a_triggered_run_is_waited_for_and_started_again_by_a_retry(simulate: Any) -> None:
    parent, child = a_dag("p"), a_dag("c")
    TriggerDagRunOperator(
        task_id="go", trigger_dag_id="c", conf={"n": 1}, wait_for_completion=True,
        retries=1, retry_delay=60, dag=parent,
    )  # fmt: skip
    work = PythonOperator(task_id="work", python_callable=lambda dag_run: dag_run.conf, dag=child)
    assert work
    world = simulate(
        parent,
        child,
        stubs={"work": Stub(raises=OSError("x"), times=1, takes=timedelta(seconds=600))},
    )
    run = world.trigger("p", run_id="r")
    world.run()
    assert run.states == {"go": "success"}
    (made,) = world.runs("c")
    assert (made.run_id, made.state, made["work"].tries) == ("triggered__p.go__r", "success", 2)
    assert run["go"].xcom("trigger_run_id") == made.run_id


def test_a_sensor_sees_the_task_of_another_dag(simulate: Any) -> None:
    early, late = a_dag("early"), a_dag("late")
    first = PythonOperator(task_id="a", python_callable=lambda: 1, dag=early)
    first >> PythonOperator(task_id="b", python_callable=lambda: 1, dag=early)
    ExternalTaskSensor(task_id="see", external_dag_id="early", external_task_id="a", dag=late)
    world = simulate(
        early,
        late,
        stubs={"a": Stub(takes=timedelta(seconds=60)), "b": Stub(takes=timedelta(seconds=6000))},
    )
    waiting = world.trigger("late", logical_date=START)
    world.advance(timedelta(hours=5))
    assert waiting.states == {"see": "deferred"}
    world.trigger("early", logical_date=START)
    world.run()
    assert waiting.state == "success"
    assert waiting.end_date == START + timedelta(hours=5, seconds=60)


def test_what_never_comes_times_out(simulate: Any) -> None:
    late = a_dag("late")
    ExternalTaskSensor(
        task_id="see", external_dag_id="never", timeout=timedelta(days=3), retries=5, dag=late
    )
    soft = a_dag("soft")
    ExternalTaskSensor(
        task_id="see", external_dag_id="never", timeout=3600, soft_fail=True, dag=soft
    )
    world = simulate(late, soft)
    hard, skipped = world.trigger("late"), world.trigger("soft")
    world.run()
    assert (hard.states, hard["see"].tries) == ({"see": "failed"}, 1)
    assert hard.end_date == START + timedelta(days=3)
    assert skipped.states == {"see": "skipped"}


@pytest.mark.parametrize(
    ("conf", "message"),
    [({"day": 32}, "param 'day' = 32"), ({}, "param 'day' has no default"), ({"day": 3}, None)],
)
def test_a_conf_that_breaks_a_param_starts_no_run(
    simulate: Any, conf: dict[str, Any], message: str | None
) -> None:
    child = a_dag("child", params={"day": Param(type="integer", maximum=31)})
    EmptyOperator(task_id="only", dag=child)
    parent = a_dag("p")
    TriggerDagRunOperator(task_id="go", trigger_dag_id="child", conf=conf, dag=parent)
    world = simulate(parent, child)
    run = world.trigger("p")
    world.run()
    assert run.states == {"go": "success" if message is None else "failed"}
    assert (message or "") in (run["go"].error or "")
    assert [one.state for one in world.runs("child")] == ([] if message else ["success"])


def test_a_wait_without_end_is_named_not_waited_for(simulate: Any) -> None:
    late = a_dag("late")
    ExternalTaskSensor(task_id="see", external_dag_id="never", timeout=None, dag=late)
    world = simulate(late, patience_s=0.01)
    world.trigger("late")
    with pytest.raises(SimulationStuck, match="have not ended"):
        world.run()
