"""DAG(deadline=…): its arguments, what is stored, and its callback (H22)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from roost.dag import DAG, DeadlineAlert, DeadlineReference
from roost.dag.callbacks import run_callback
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from roost.support.clock import to_us
from roost.support.wire import CallbackSpec
from tests.dag.case import FakeSupervisor, a_dag, spec_for

HOUR = timedelta(hours=1)


def test_h22_every_reference_is_stored() -> None:
    """H22: one or a list; a naive fixed moment is in the DAG's zone."""
    moment = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - naive is what is tested
    with a_dag(
        deadline=[
            DeadlineAlert(DeadlineReference.DAGRUN_LOGICAL_DATE, HOUR, print),
            DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, -HOUR, print, name="soon"),
            DeadlineAlert(DeadlineReference.FIXED_DATETIME(moment), timedelta(0), print),
            DeadlineAlert(DeadlineReference.AVERAGE_RUNTIME(), HOUR, [print]),
        ]
    ) as dag:
        EmptyOperator(task_id="a")
    found = serialize_dag(dag).deadlines
    assert [one.reference for one in found] == ["logical_date", "queued_at", "fixed", "average"]
    hour = 3_600_000_000
    assert [one.interval_us for one in found] == [hour, -hour, 0, hour]
    assert found[2].at == to_us(moment.replace(tzinfo=UTC))
    assert found[1].name == "soon"


def test_h22_the_callback_sees_the_run_and_the_moment() -> None:
    """H22: each deadline has its own callback, found by its place in the list."""
    seen: list[dict[str, Any]] = []
    reference = DeadlineReference.DAGRUN_QUEUED_AT
    with a_dag(
        deadline=[
            DeadlineAlert(reference, HOUR, print),
            DeadlineAlert(reference, HOUR, seen.append, name="two hours"),
        ]
    ) as dag:
        task = EmptyOperator(task_id="a")
    due = datetime(2026, 3, 1, tzinfo=UTC)
    detail = msgspec.Raw(msgspec.json.encode({"due_at": to_us(due)}))
    callback = CallbackSpec(
        kind="deadline", name="deadline", position=1, state="running", detail=detail
    )
    spec = spec_for(task, task_id="", callback=callback)
    assert run_callback(spec, dag, FakeSupervisor()).kind == "success"
    (context,) = seen
    assert context["deadline"] == due
    assert context["reason"] == "deadline two hours missed: the run is running"
    assert context["dag_run"].run_id == "scheduled__2026-01-31"
    callback.position = 5
    outcome = run_callback(spec, dag, FakeSupervisor())
    assert "has no deadline_callback any more" in (outcome.error or "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("queued_at", HOUR, print), "reference must be DeadlineReference"),
        ((DeadlineReference.DAGRUN_QUEUED_AT, 60, print), "interval must be a timedelta"),
        ((DeadlineReference.DAGRUN_QUEUED_AT, HOUR, None), "callback is missing"),
        ((DeadlineReference.DAGRUN_QUEUED_AT, HOUR, "x"), "callback must be a function"),
    ],
)
def test_h22_wrong_arguments_are_one_line(arguments: tuple[Any, ...], error: str) -> None:
    """H22: refused where it is written."""
    with pytest.raises(DagError, match=error):
        DeadlineAlert(*arguments)


def test_h22_only_deadlines() -> None:
    """H22: a DAG takes alerts, not timedeltas, and a fixed moment is one."""
    with pytest.raises(DagError, match="DAG 'x': deadline must be a DeadlineAlert"):
        DAG("x", deadline=HOUR)  # type: ignore[arg-type]
    with pytest.raises(DagError, match="FIXED_DATETIME takes a datetime"):
        DeadlineReference.FIXED_DATETIME("2026-01-01")  # type: ignore[arg-type]
