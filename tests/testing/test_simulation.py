"""``roost.testing``: real decisions on a clock that jumps from event to event."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roost.dag import DAG, Connection, Variable, task
from roost.exceptions import DagError, FailTask, NotFound, RoostException, SkipTask
from roost.operators import BaseOperator, BashOperator, EmptyOperator, PythonOperator
from roost.sensors import HttpSensor
from roost.testing import Simulation, SimulationStuck, Stub, run_dag, run_schedule
from roost.triggers import BaseTrigger, TimeDeltaTrigger, TriggerEvent
from tests.operators.test_http import Server

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def doze(seconds: float) -> None:
    """A body that takes its time."""
    time.sleep(seconds)


class Nap(BaseTrigger):
    """Polls every minute, ``minutes`` times."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.Nap", {"minutes": self.minutes})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        for _ in range(self.minutes):
            await asyncio.sleep(60)
        yield TriggerEvent("rested")


class Never(BaseTrigger):
    """Waits for something outside that does not come."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.Never", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent(None)


class Broken(BaseTrigger):
    """Fails after a minute."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.Broken", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(60)
        raise ValueError("no such job")
        yield TriggerEvent(None)


class Waits(BaseOperator):
    """Defers once to a trigger and returns its event."""

    def __init__(self, trigger: Any, *, limit: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trigger = trigger
        self.limit = limit

    def execute(self, context: dict[str, Any]) -> None:
        trigger = self.trigger() if callable(self.trigger) else self.trigger
        self.defer(trigger=trigger, method_name="done", timeout=self.limit)

    def done(self, context: dict[str, Any], event: Any) -> Any:
        return event


def test_a_run_of_real_operators(tmp_path: Path) -> None:
    with DAG("real") as dag:
        first = BashOperator(task_id="first", bash_command="echo {{ ds }}")
        second = PythonOperator(task_id="second", python_callable=lambda ti: ti.xcom_pull("first"))
        first >> second >> EmptyOperator(task_id="third")
    run = run_dag(dag, logical_date=START)
    assert run.state == "success"
    assert run.states == {"first": "success", "second": "success", "third": "success"}
    assert run["second"].xcom() == "2026-01-01"
    assert (run.run_type, run.logical_date, run.start_date) == ("manual", START, START)
    with pytest.raises(KeyError, match=r"no task instance 'fourth'; it has first, second, third"):
        run["fourth"]


def test_a_timer_of_hours_takes_no_time_and_the_clock_of_the_code_moves_with_it() -> None:
    """The whole way: deferred, resumed by its timer, five hours later (N1, D3)."""
    seen = []

    class Later(Waits):
        def done(self, context: dict[str, Any], event: Any) -> Any:
            seen.append(datetime.now(UTC))
            return event

    with DAG("timer") as dag:
        Later(lambda: TimeDeltaTrigger(5 * HOUR), task_id="t")
    run = run_dag(dag, logical_date=START)
    assert run["t"].xcom() == START + 5 * HOUR
    assert run.end_date == START + 5 * HOUR
    assert seen == [START + 5 * HOUR]
    assert run["t"].events == [
        "schedule", "enqueue", "start", "defer", "resume", "enqueue", "start", "succeed",
    ]  # fmt: skip


def test_a_trigger_that_sleeps_wakes_on_the_simulations_clock() -> None:
    with DAG("poll") as dag:
        Waits(Nap(90), task_id="t")
    run = run_dag(dag, logical_date=START)
    assert run["t"].xcom() == "rested"
    assert run.end_date == START + timedelta(minutes=90)


def test_a_failed_trigger_and_a_time_out_fail_the_task() -> None:
    """D5, D6: each on its own moment of the simulation's clock."""
    with DAG("bad") as dag:
        Waits(Broken(), task_id="broken")
        Waits(Nap(500), task_id="late", limit=HOUR)
    run = run_dag(dag, logical_date=START)
    assert run.states == {"broken": "failed", "late": "failed"}
    assert "no such job" in (run["broken"].error or "")
    assert "timed out" in (run["late"].error or "")
    assert run.end_date == START + HOUR


def test_a_trigger_that_never_fires_is_named() -> None:
    with DAG("never") as dag:
        Waits(Never(), task_id="t")
    with Simulation(dag, patience_s=0.01) as simulation:
        simulation.trigger()
        with pytest.raises(SimulationStuck, match=r"never\.t .*Never"):
            simulation.run()


def test_stubs_stand_in_for_bodies() -> None:
    called = []

    def body(context: dict[str, Any]) -> str:
        called.append(context["ds"])
        return "by hand"

    with DAG("stubbed", default_args={"retry_delay": HOUR}) as dag:
        load = BashOperator(task_id="load", bash_command="exit 1", retries=2)
        skip = BashOperator(task_id="skip", bash_command="exit 1")
        call = BashOperator(task_id="call", bash_command="exit 1")
        [load, skip, call] >> EmptyOperator(task_id="join", trigger_rule="none_failed")
        BashOperator(task_id="other", bash_command="exit 1")
    run = run_dag(
        dag,
        logical_date=START,
        stubs={
            "load": Stub(returns=3, raises=ValueError("not yet"), times=2, xcoms={"k": [1]}),
            "skip": SkipTask("nothing to do"),
            "stubbed.call": body,
            "*": Stub(takes=timedelta(minutes=3)),
        },
    )
    assert run.states == {
        "load": "success", "skip": "skipped", "call": "success", "join": "success",
        "other": "success",
    }  # fmt: skip
    assert (run["load"].tries, run["load"].xcom(), run["load"].xcom("k")) == (3, 3, [1])
    assert run["load"].end_date == START + 2 * HOUR
    assert run["other"].end_date == START + timedelta(minutes=3)
    assert called == ["2026-01-01"]
    with pytest.raises(DagError, match=r"write Stub\(returns=3\)"):
        Simulation(dag, stubs={"load": 3})


def test_fail_task_forbids_a_retry_and_fails_what_follows() -> None:
    with DAG("fails") as dag:
        (
            EmptyOperator(task_id="a")
            >> PythonOperator(task_id="b", python_callable=print, retries=5)
            >> EmptyOperator(task_id="c")
        )
    run = run_dag(dag, stubs={"b": Stub(raises=FailTask("no"))})
    assert (run.state, run["b"].tries) == ("failed", 1)
    assert run["c"].state == "upstream_failed"


def test_bodies_take_the_time_that_they_sleep_and_run_side_by_side() -> None:
    with DAG("sleep") as dag:
        for number in (1, 2, 3):
            PythonOperator(task_id=f"t{number}", python_callable=doze, op_args=[600 * number])
    began = time.monotonic()
    run = run_dag(dag, logical_date=START)
    assert [t.end_date for t in run.tasks] == [
        START + timedelta(seconds=600 * number) for number in (1, 2, 3)
    ]
    assert run.end_date == START + timedelta(minutes=30)
    assert time.monotonic() - began < 600


def test_execution_timeout_counts_the_simulated_time_d7() -> None:
    with DAG("slow") as dag:
        PythonOperator(task_id="t", python_callable=doze, op_args=[7200], execution_timeout=HOUR)
    run = run_dag(dag, logical_date=START)
    assert (run["t"].state, run["t"].end_date) == ("failed", START + HOUR)
    assert "execution_timeout" in (run["t"].error or "")


def test_parallelism_and_pools_hold_on_the_simulated_clock() -> None:
    with DAG("narrow") as dag:
        for number in range(6):
            EmptyOperator(task_id=f"e{number}") >> PythonOperator(
                task_id=f"t{number}", python_callable=print, pool="two"
            )
    run = run_dag(dag, logical_date=START, pools={"two": 2}, stubs={"*": Stub(takes=HOUR)})
    assert run.end_date == START + 3 * HOUR
    run = run_dag(
        dag, logical_date=START, pools={"two": 9}, parallelism=3, stubs={"*": Stub(takes=HOUR)}
    )
    assert run.end_date == START + 2 * HOUR


def test_a_week_of_a_schedule() -> None:
    """S21: a run for each interval, in order, at the moment it is due."""
    with DAG("weekly", schedule="0 3 * * *", start_date=START) as dag:
        PythonOperator(task_id="t", python_callable=print)
    runs = run_schedule(dag, START, START + timedelta(days=7), stubs={"t": Stub()})
    assert len(runs) == 6
    assert [run.state for run in runs] == ["success"] * 6
    assert runs[0].logical_date == START + 3 * HOUR
    assert runs[0].start_date == START + timedelta(days=1, hours=3)
    assert runs[0].run_type == "scheduled"


def test_catchup_starts_with_what_was_missed() -> None:
    with DAG("late", schedule="@daily", start_date=START, catchup=True) as dag:
        EmptyOperator(task_id="t")
    with Simulation(dag, start=START + timedelta(days=10)) as simulation:
        simulation.run()
        assert len(simulation.runs()) == 10
        simulation.advance(timedelta(days=1))
        assert len(simulation.runs("late")) == 11
        assert simulation.now == START + timedelta(days=11)


def test_a_file_with_helpers_variables_and_connections(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from roost.dag import DAG, Variable, task\n"
        "from roost.operators import BashOperator\n"
        "with DAG('flow'):\n"
        "    @task\n"
        "    def read():\n"
        "        Variable.set('seen', 'yes')\n"
        "        return Variable.get('place')\n"
        "    read() >> BashOperator(task_id='echo', bash_command='echo {{ conn.db.host }}')\n"
    )
    run = run_dag(
        tmp_path / "flow.py",
        variables={"place": "Lund"},
        connections={"db": "postgres://u:p@box:5432/x"},
    )
    assert run["read"].xcom() == "Lund"
    assert run["echo"].xcom() == "box"


class AsksHost(BaseTrigger):
    """Fires with what it is answered."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.AsksHost", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        connection = await self.get_connection("db")
        place = await asyncio.to_thread(Variable.get, "place")
        yield TriggerEvent([connection.host, place, await self.xcom_pull("first")])


class WaitsForHost(BaseOperator):
    def execute(self, context: dict[str, Any]) -> None:
        self.defer(trigger=AsksHost(), method_name="back")

    def back(self, context: dict[str, Any], event: Any) -> Any:
        return event


def test_triggers_are_answered_from_the_given_stores() -> None:
    with DAG("d") as dag:

        @task
        def first() -> int:
            return 42

        first() >> WaitsForHost(task_id="waits")
    run = run_dag(dag, variables={"place": "Lund"}, connections={"db": "postgres://u:p@box:1/x"})
    assert run["waits"].xcom() == ["box", "Lund", 42]


def test_the_clock_stands_still_while_a_server_answers() -> None:
    """Hours of polling a real server in a moment, and no request runs into its time-out."""
    server = Server("HTTP/1.1")
    looks = iter(["running"] * 200 + ["done"])
    server.answer = lambda _server, _path: (200, f'{{"state": "{next(looks)}"}}')
    with DAG("d") as dag:
        HttpSensor(task_id="waits", http_conn_id="api", json_path="state", success_values=["done"])
    try:
        uri = f"http://127.0.0.1:{server.port}"
        with Simulation(dag, connections={"api": uri}, start=START) as simulation:
            run = simulation.trigger()
            simulation.run()
            assert run["waits"].xcom() == "done"
            assert simulation.now > START + 3 * HOUR
        assert len(server.seen) == 201
    finally:
        server.close()


def test_two_dags_and_the_ids_that_are_there() -> None:
    with DAG("one") as one:
        EmptyOperator(task_id="t")
    with DAG("two") as two:
        EmptyOperator(task_id="t")
    with Simulation([one, two]) as simulation:
        run = simulation.trigger("two", run_id="mine", conf={"a": 1})
        simulation.run()
        assert (run.dag_id, run.run_id, run.state) == ("two", "mine", "success")
        with pytest.raises(NotFound, match="there is one, two"):
            simulation.trigger()
        with pytest.raises(RoostException, match="'mine' of two exists already"):
            simulation.trigger("two", run_id="mine")
    with pytest.raises(DagError, match="'one' is given twice"):
        Simulation([one, one])


def test_outside_a_task_the_stores_are_not_there() -> None:
    """A simulation leaves nothing behind: no clock, no sleep, no supervisor."""
    with DAG("d") as dag:
        EmptyOperator(task_id="t")
    real = time.sleep
    run_dag(dag, logical_date=START)
    assert time.sleep is real
    assert datetime.now(UTC).year > 2025
    with pytest.raises(RoostException):
        Variable.get("x")
    with pytest.raises(RoostException):
        Connection.get("x")


def test_taskflow_and_branches() -> None:
    with DAG("flow") as dag:

        @task.branch
        def choose() -> str:
            return "left"

        left, right = EmptyOperator(task_id="left"), EmptyOperator(task_id="right")
        choose() >> [left, right]
    assert run_dag(dag).states == {"choose": "success", "left": "success", "right": "skipped"}
    skipped = run_dag(dag, stubs={"choose": Stub(skips=["left"])})
    assert skipped.states == {"choose": "success", "left": "skipped", "right": "success"}


def test_a_month_of_an_hourly_schedule() -> None:
    """Every hour its own run, each of two tasks, in the order of time."""
    with DAG("hourly", schedule="@hourly", start_date=START) as dag:
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
    runs = run_schedule(dag, START, START + timedelta(days=30))
    assert len(runs) == 30 * 24
    assert {run.state for run in (runs[0], runs[359], runs[-1])} == {"success"}
    assert runs[-1].start_date == START + timedelta(days=30)


def test_mapped_tasks_real_and_stubbed() -> None:
    """H17: each instance by its index; a stub stands in for every one of them."""
    with DAG("mapped") as dag:

        @task
        def numbers() -> list[int]:
            return [1, 2, 3]

        @task
        def double(x: int) -> int:
            return 2 * x

        @task
        def total(values: list[int]) -> int:
            return sum(values)

        total(double.expand(x=numbers()))
    run = run_dag(dag)
    assert run["double", 2].xcom() == 6
    assert run["total"].xcom() == 12
    stubbed = run_dag(dag, stubs={"double": lambda context: context["ti"].map_index})
    assert stubbed["total"].xcom() == 3


def test_callbacks_are_called() -> None:
    """H23: by the scheduler's own dispatches, after the state is stored."""
    told = []
    with DAG("told", on_failure_callback=lambda context: told.append(context["reason"])) as dag:
        PythonOperator(
            task_id="t",
            python_callable=print,
            on_failure_callback=lambda context: told.append(context["ti"].state),
        )
    run_dag(dag, stubs={"t": Stub(raises=ValueError("no"))})
    assert sorted(told) == ["failed", "task_failure"]


def test_a_simulation_may_be_collected_while_a_loop_runs() -> None:
    """Who forgets to close it: the collector comes when it likes, in a test of theirs, say."""

    async def collect() -> None:
        with DAG("d", start_date=START, schedule=None) as dag:
            EmptyOperator(task_id="t")
        forgotten: list[Simulation] = [Simulation([dag])]
        errors: list[object] = []
        before, sys.unraisablehook = sys.unraisablehook, errors.append
        try:
            forgotten.clear()
            gc.collect()
        finally:
            sys.unraisablehook = before
        assert not errors

    asyncio.run(collect())
