"""Assets as authors write them (H16)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from roost.dag import DAG, Asset, AssetAll, AssetOrTimeSchedule, task
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import EmptyOperator, PythonOperator
from roost.testing import Simulation

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS, RATES = Asset("s3://orders"), Asset(name="rates", extra={"unit": "EUR"})


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (ORDERS, "s3://orders"),
        ([ORDERS, RATES], "s3://orders & rates"),
        (ORDERS & RATES, "s3://orders & rates"),
        (ORDERS | RATES, "s3://orders | rates"),
        ((ORDERS & RATES) | Asset("c"), "(s3://orders & rates) | c"),
        (AssetAll(ORDERS, RATES, Asset("c")), "s3://orders & rates & c"),
        (AssetOrTimeSchedule("@daily", [ORDERS]), "s3://orders or @daily"),
    ],
)
def test_what_a_dag_waits_for(schedule: Any, words: str) -> None:
    """H16: assets, AND and OR, and a time besides."""
    with DAG("d", schedule=schedule) as dag:
        EmptyOperator(task_id="t", outlets=RATES)
    made = serialize_dag(dag)
    assert made.timetable.summary == words
    assert made.tasks[0].outlets == ["rates"]
    assert (made.timetable.kind == "cron") is (words.endswith("@daily"))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Asset(""), "needs a uri or a name"),
        (lambda: Asset("x" * 251), "at most 250"),
        (lambda: DAG("d", schedule=[]), "empty list"),
        (lambda: DAG("d", schedule=cast(Any, ["s3://x"])), r"write Asset\('s3://x'\)"),
        (
            lambda: EmptyOperator(task_id="t", outlets=cast(Any, "s3://x")),
            "outlets must be an Asset",
        ),
        (lambda: ORDERS & cast(Any, 3), "made of Assets"),
    ],
)
def test_what_is_no_asset(make: Any, match: str) -> None:
    with pytest.raises(DagError, match=match):
        make()


def test_events_carry_what_their_maker_says_into_the_run_they_start() -> None:
    """H16: extra and where it came from, in the run that the event started."""
    with DAG("make") as maker:

        @task(outlets=[ORDERS, RATES])
        def load(outlet_events: Any) -> None:
            outlet_events[ORDERS].extra = {"rows": 3}
            outlet_events[RATES].add({"at": START})

        load()
    with DAG("read", schedule=[ORDERS, RATES]) as reader:

        def look(triggering_asset_events: Any) -> list[Any]:
            (orders,) = triggering_asset_events[ORDERS]
            (rates,) = triggering_asset_events["rates"]
            return [orders.extra, rates.extra, orders.source_dag_id, orders.source_task_id]

        PythonOperator(task_id="look", python_callable=look)
        PythonOperator(task_id="text", python_callable=print, op_args=["{{ inlets }}"])
    with Simulation([maker, reader], start=START) as simulation:
        simulation.trigger("make", run_id="r")
        simulation.run()
        (run,) = simulation.runs("read")
        assert run.state == "success"
        assert run["look"].xcom() == [
            {"rows": 3}, {"unit": "EUR", "at": START}, "make", "load",
        ]  # fmt: skip


def test_a_run_that_no_event_started_has_none() -> None:
    with DAG("d", schedule=AssetOrTimeSchedule("@daily", ORDERS), start_date=START) as dag:
        PythonOperator(
            task_id="t",
            python_callable=lambda triggering_asset_events: len(triggering_asset_events),
        )
    with Simulation(dag, start=START) as simulation:
        simulation.advance(timedelta(days=1))
        (run,) = simulation.runs()
        assert (run.run_type, run["t"].xcom()) == ("scheduled", 0)
