"""Operators that skip: BaseBranch, ShortCircuit, LatestOnly, by date and by day (S74, S90-S94)."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from roost.dag import DAG
from roost.exceptions import DagError
from roost.operators import (
    BaseBranchOperator,
    BaseOperator,
    BranchDateTimeOperator,
    BranchDayOfWeekOperator,
    BranchPythonOperator,
    EmptyOperator,
    LatestOnlyOperator,
    ShortCircuitOperator,
)
from roost.support.clock import to_us
from roost.support.wire import Outcome
from tests.dag.case import DAY, LOGICAL, FakeSupervisor, a_dag, raw, run

END = LOGICAL + DAY
MOMENT = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the operators take for now, in microseconds."""

    def put(us: int) -> None:
        monkeypatch.setattr("roost.operators.branch.now_us", lambda: us)

    put(to_us(MOMENT))
    return put


def below(task: BaseOperator) -> BaseOperator:
    """Puts ``task`` before yes >> end and no >> end, where end has trigger rule all_done."""
    dag = task.dag
    end = EmptyOperator(task_id="end", trigger_rule="all_done", dag=dag)
    for name in ("yes", "no"):
        task >> EmptyOperator(task_id=name, dag=dag) >> end
    return task


def outcome(task: BaseOperator, **changes: Any) -> tuple[str, list[str], Any]:
    """State, what is skipped directly, and the return value."""
    supervisor = FakeSupervisor()
    found, values = run(below(task), supervisor, **changes)
    assert found.error is None, found.error
    return found.kind, found.skip, values.get("return_value")


class ByTable(BaseBranchOperator):
    def choose_branch(self, context: dict[str, Any]) -> Any:
        return context["ti"].xcom_pull(task_ids="other") or "yes"


def test_s74_a_subclass_chooses_the_branch() -> None:
    assert outcome(ByTable(task_id="b", dag=a_dag())) == ("success", ["no"], "yes")


def test_s73_a_branch_may_decide_by_an_xcom() -> None:
    task = below(ByTable(task_id="b", dag=a_dag()))
    supervisor = FakeSupervisor("other")
    source = BranchPythonOperator(task_id="other", python_callable=lambda: None, dag=task.dag)
    run(source, supervisor)
    supervisor.xcoms["other", "return_value"] = raw(["no"])
    found, _ = run(task, supervisor)
    assert found.skip == ["yes"]


def circuit(value: Any, **arguments: Any) -> ShortCircuitOperator:
    return ShortCircuitOperator(
        task_id="s", python_callable=lambda: value, dag=a_dag(), **arguments
    )


def test_short_circuit() -> None:
    assert outcome(circuit([1])) == ("success", [], [1])
    # end, too, though its rule is all_done
    assert outcome(circuit("")) == ("success", ["end", "yes", "no"], "")
    direct = circuit(0, ignore_downstream_trigger_rules=False)
    assert outcome(direct) == ("success", ["yes", "no"], 0)


def test_short_circuit_leaves_what_cleans_up() -> None:
    task = circuit(False)
    task >> EmptyOperator(task_id="clean", dag=task.dag).as_teardown()
    assert "clean" not in run(below(task))[0].skip


def latest(schedule: Any = "0 3 * * *") -> LatestOnlyOperator:
    return LatestOnlyOperator(task_id="l", dag=a_dag(schedule=schedule))


ALL = ["end", "yes", "no"]


@pytest.mark.parametrize(
    ("at", "skips"),
    [(END, True), (END + 1, False), (END + DAY, False), (END + DAY + 1, True)],
    ids=["left", "after left", "right", "after right"],
)
@pytest.mark.parametrize("schedule", ["0 3 * * *", timedelta(days=1)])
def test_s90_s91_s92_only_the_latest_run_goes_on(
    now: Any, schedule: Any, at: int, skips: bool
) -> None:
    """In (left, right] it goes on; else it is skipped itself, and all that is below directly."""
    now(at)
    kind, skipped, _ = outcome(latest(schedule))
    assert (kind, skipped) == (("skipped", ALL) if skips else ("success", []))


@pytest.mark.parametrize("schedule", [None, "@once", "@continuous"])
def test_s90_without_a_next_run_each_is_the_latest(now: Any, schedule: Any) -> None:
    now(END + 900 * DAY)
    assert outcome(latest(schedule))[0] == "success"


def test_s93_a_run_by_hand_never_skips(now: Any) -> None:
    now(END + 900 * DAY)
    assert outcome(latest(), run_type="manual")[:2] == ("success", [])
    assert outcome(latest(), run_type="backfill")[0] == "skipped"


@pytest.mark.parametrize(
    ("lower", "upper", "branch"),
    [
        (MOMENT - timedelta(1), MOMENT, "yes"),
        (MOMENT + timedelta(1), None, "no"),
        (None, MOMENT.replace(hour=11), "no"),
        (time(11), time(13), "yes"),
        (time(13), time(11), "no"),
        (time(23), time(12, 30), "yes"),
    ],
)
def test_branch_by_date_time(now: Any, lower: Any, upper: Any, branch: str) -> None:
    now(to_us(MOMENT))
    task = BranchDateTimeOperator(
        task_id="b",
        follow_task_ids_if_true="yes",
        follow_task_ids_if_false=["no"],
        target_lower=lower,
        target_upper=upper,
        dag=a_dag(),
    )
    other = {"yes": ["no"], "no": ["yes"]}
    assert outcome(task)[1] == other[branch]


def test_branch_by_day(now: Any) -> None:
    def on(days: Any, **arguments: Any) -> list[str]:
        task = BranchDayOfWeekOperator(
            task_id="b",
            follow_task_ids_if_true="yes",
            follow_task_ids_if_false="no",
            week_day=days,
            dag=a_dag(),
            **arguments,
        )
        return outcome(task)[1]

    assert now
    assert on("Wednesday") == ["no"]
    assert on(["monday", "tuesday"]) == ["yes"]
    assert on("saturday", use_task_logical_date=True) == ["no"]
    with pytest.raises(DagError, match="week_day must name days"):
        on("someday")
    with pytest.raises(DagError, match="give target_lower or target_upper"):
        BranchDateTimeOperator(
            task_id="b",
            follow_task_ids_if_true="yes",
            follow_task_ids_if_false="no",
            target_lower=None,
            target_upper=None,
        )


def test_s70_s71_a_wrong_choice_fails(now: Any) -> None:
    assert now
    with DAG("d", start_date=MOMENT) as dag:
        first = BranchPythonOperator(task_id="b", python_callable=lambda: "far")
        first >> EmptyOperator(task_id="near") >> EmptyOperator(task_id="far")
    found: Outcome = run(dag.get_task("b"))[0]
    assert "which is not directly downstream" in (found.error or "")
