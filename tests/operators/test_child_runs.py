"""Operators that start runs and wait for them: TriggerDagRun, SubDag, ExternalTask (S95-S99)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.dag import DAG
from roost.dag.parse import parse_dag_file
from roost.exceptions import DagError, RoostException
from roost.operators import EmptyOperator, SubDagOperator, TriggerDagRunOperator
from roost.sensors import ExternalTaskSensor
from roost.support.clock import from_us
from roost.support.task_requests import DagRecord, Reply, RunCreate, RunRecord, RunStates
from roost.support.wire import Outcome
from tests.dag.case import DAY, LOGICAL, FakeSupervisor, a_dag, load_text, raw, run


def asked(task: Any, *replies: Reply, **changes: Any) -> tuple[Outcome, Any]:
    """Outcome of a task whose questions get these answers, and its last question."""
    supervisor = FakeSupervisor()
    supervisor.run_replies = list(replies)
    outcome, _ = run(task, supervisor, **changes)
    return outcome, supervisor.asked[-1] if supervisor.asked else None


def did(text: str, state: str = "queued", run_id: str = "r") -> Reply:
    return Reply(text=text, runs=[RunRecord(run_id, state)])


def trigger(**arguments: Any) -> TriggerDagRunOperator:
    return TriggerDagRunOperator(task_id="t", trigger_dag_id="other", dag=a_dag(), **arguments)


def complete(task: Any, status: str, **states: str) -> Outcome:
    kwargs = raw({"event": {"status": status, "states": states}})
    return run(task, next_method="execute_complete", next_kwargs=kwargs)[0]


def test_trigger_starts_one_run_with_an_id_of_its_own() -> None:
    outcome, request = asked(trigger(conf={"day": "{{ ds }}"}), did("created"))
    assert outcome.kind == "success"
    assert isinstance(request, RunCreate)
    assert (request.dag_id, request.on_exists) == ("other", "restart_failed")
    assert request.run_id == "triggered__d.t__scheduled__2026-01-31"
    assert msgspec.json.decode(request.conf) == {"day": "2026-01-31"}
    _, again = asked(trigger(), did("exists"), try_number=2)
    assert again.run_id == request.run_id
    _, mapped = asked(trigger(), did("created"), map_index=3)
    assert mapped.run_id == "triggered__d.t[3]__scheduled__2026-01-31"
    _, long = asked(trigger(), did("created"), run_id="x" * 250)
    assert len(long.run_id) == 250


def test_trigger_with_an_id_of_the_users() -> None:
    mine = {"trigger_run_id": "mine-{{ ds }}", "logical_date": "{{ ts }}"}
    outcome, request = asked(trigger(**mine), did("created"))
    assert outcome.kind == "success"
    assert (request.run_id, request.logical_date) == ("mine-2026-01-31", LOGICAL)
    assert request.on_exists == "leave"
    outcome, _ = asked(trigger(**mine), did("exists", "success"))
    assert "exists already (success)" in (outcome.error or "")
    # A retry comes back to the run that its first try started.
    assert asked(trigger(**mine), did("created", "running"), try_number=2)[0].kind == "success"
    skips = trigger(skip_when_already_exists=True, **mine)
    assert asked(skips, did("exists", "success"))[0].kind == "skipped"
    _, request = asked(trigger(reset_dag_run=True, **mine), did("restarted"))
    assert request.on_exists == "restart"
    older = TriggerDagRunOperator(
        task_id="t", trigger_dag_id="o", execution_date=from_us(5), dag=a_dag()
    )
    assert asked(older, did("created"))[1].logical_date == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unknown", "there is no DAG 'other'"),
        ("inactive", "no longer defined by its file"),
        ("paused", "DAG 'other' is paused: `roost dags unpause other`"),
    ],
)
def test_trigger_names_what_is_wrong_with_the_dag(text: str, message: str) -> None:
    outcome, request = asked(trigger(fail_when_dag_is_paused=True), Reply(text=text))
    assert request.refuse_paused
    assert message in (outcome.error or "")


def test_trigger_waits_without_a_slot() -> None:
    task = trigger(wait_for_completion=True)
    outcome, _ = asked(task, did("created"))
    assert outcome.defer is not None
    assert (outcome.defer.lane, outcome.defer.key) == ("external", "roost:run/other/r")
    assert complete(task, "success", r="success").kind == "success"
    assert "ended as failed" in (complete(task, "failed", r="failed").error or "")
    assert "was deleted" in (complete(task, "gone").error or "")
    assert asked(task, did("exists", "success"))[0].kind == "success"
    tolerant = trigger(
        wait_for_completion=True, allowed_states=["success", "failed"], failed_states=[]
    )
    assert complete(tolerant, "success", r="failed").kind == "success"


def test_trigger_can_wait_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("roost.operators.trigger_dagrun.time.sleep", naps.append)
    task = trigger(wait_for_completion=True, deferrable=False, poke_interval=3)
    seen = [Reply(runs=[RunRecord("r", state)]) for state in ("running", "success")]
    outcome, request = asked(task, did("created"), *seen)
    assert (outcome.kind, naps) == ("success", [3, 3])
    assert isinstance(request, RunStates)
    assert "was deleted" in (asked(task, did("created"), Reply())[0].error or "")


def test_states_are_known_ones() -> None:
    with pytest.raises(RoostException, match="allowed_states holds 'done'"):
        trigger(allowed_states=["done"])


# -- SubDagOperator


def a_subdag(schedule: Any = "@daily", dag_id: str = "d.sub", **arguments: Any) -> SubDagOperator:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    child = DAG(dag_id, schedule=schedule, start_date=start)
    EmptyOperator(task_id="inner", dag=child)
    return SubDagOperator(task_id="sub", subdag=child, dag=a_dag(), **arguments)


def test_s95_the_id_of_a_subdag_names_its_parent_and_task() -> None:
    assert a_subdag().subdag.parent_dag is not None
    with pytest.raises(DagError, match=r"must have the dag_id 'd.sub', not 'd.other'"):
        a_subdag(dag_id="d.other")
    with pytest.raises(DagError, match="subdag must be a DAG"):
        SubDagOperator(task_id="sub", subdag="d.sub", dag=a_dag())  # type: ignore[arg-type]


def test_s95_a_child_run_has_the_dates_and_the_conf_of_its_parent() -> None:
    outcome, request = asked(a_subdag(), did("created"), conf=raw({"a": 1}), run_type="backfill")
    assert outcome.defer is not None
    assert outcome.defer.key == "roost:run/d.sub/r"
    assert (request.run_id, request.run_type) == ("scheduled__2026-01-31", "backfill")
    assert request.logical_date == request.interval_start == LOGICAL
    assert request.interval_end == LOGICAL + DAY
    assert (request.on_exists, msgspec.json.decode(request.conf)) == ("resume_failed", {"a": 1})
    own = asked(a_subdag(conf={"b": "{{ ds }}"}), did("created"))[1]
    assert msgspec.json.decode(own.conf) == {"b": "2026-01-31"}


def test_s95_the_operator_ends_as_its_run_does() -> None:
    assert complete(a_subdag(), "success").kind == "success"
    failure = complete(a_subdag(), "failed")
    assert failure.retryable
    assert "of sub-DAG 'd.sub' failed" in (failure.error or "")
    assert "was deleted" in (complete(a_subdag(), "gone").error or "")
    # Its run may have ended meanwhile: a worker was lost, or the task was cleared alone.
    assert asked(a_subdag(), did("exists", "success"))[0].kind == "success"
    assert asked(a_subdag(), did("restarted"))[0].kind == "deferred"


@pytest.mark.parametrize("schedule", [None, "@once"])
def test_s96_a_subdag_without_a_schedule_does_nothing(schedule: str | None) -> None:
    outcome, request = asked(a_subdag(schedule))
    assert (outcome.kind, request) == ("success", None)


SUBDAG_FILE = """
from datetime import datetime
from roost.dag import DAG
from roost.operators import EmptyOperator, SubDagOperator

def subdag(parent, child, args):
    dag = DAG(f"{parent}.{child}", schedule="@daily", default_args=args)
    for i in range(2):
        EmptyOperator(task_id=f"{child}-{i}", dag=dag)
    if parent == "main":
        SubDagOperator(task_id="deeper", dag=dag, subdag=subdag(dag.dag_id, "deeper", args))
    return dag

args = {"owner": "me", "retries": 4, "start_date": datetime(2026, 1, 1)}
with DAG("main", schedule="@daily", default_args=args):
    SubDagOperator(task_id="section", subdag=subdag("main", "section", args))
"""


def test_s95_s99_subdags_are_found_through_their_operators(tmp_path: Path) -> None:
    load_text(tmp_path, SUBDAG_FILE)
    parsed = parse_dag_file(str(tmp_path / "file.py"), str(tmp_path))
    assert parsed.error is None
    dags = {dag.dag_id: dag for dag in parsed.dags}
    assert set(dags) == {"main", "main.section", "main.section.deeper"}
    (section,) = dags["main"].tasks
    assert (section.operator, section.extra["subdag_id"]) == ("SubDagOperator", "main.section")
    child = dags["main.section"]
    assert child.extra["is_subdag"] is True
    assert child.extra["parent"] == "main"
    assert dags["main.section.deeper"].extra["parent"] == "main.section"
    # Never scheduled by itself, never paused by itself (S96).
    assert (child.timetable.kind, child.is_paused_upon_creation) == ("null", False)
    assert child.timetable.summary == "sub-DAG of main"
    assert dags["main"].timetable.kind == "cron"
    # Arguments are shared by passing them on (S99).
    assert [task.retries for task in child.tasks] == [4, 4, 4]


def test_s95_a_wrong_id_is_the_files_import_error(tmp_path: Path) -> None:
    load_text(tmp_path, "x = 1")
    (tmp_path / "file.py").write_text(SUBDAG_FILE.replace('"{parent}.{child}"', '"{child}"'))
    parsed = parse_dag_file(str(tmp_path / "file.py"), str(tmp_path))
    assert "must have the dag_id" in (parsed.error or "")


# -- ExternalTaskSensor


def external(**arguments: Any) -> ExternalTaskSensor:
    return ExternalTaskSensor(task_id="x", external_dag_id="other", dag=a_dag(), **arguments)


def seen(state: str, date: int = LOGICAL, **tasks: list[str]) -> Reply:
    return Reply(runs=[RunRecord("r", state, date, tasks)], dag=DagRecord(True, False, list(tasks)))


def test_external_run_of_the_same_logical_date() -> None:
    outcome, request = asked(external(), seen("success"))
    assert (outcome.kind, request.logical_dates) == ("success", [LOGICAL])
    outcome, _ = asked(external(), seen("failed"))
    assert outcome.defer is not None  # a failure may be mended and is waited out, unless told
    assert outcome.defer.key == f"roost:run/other@{LOGICAL}"
    strict = external(failed_states=["failed"])
    assert "failed" in (asked(strict, seen("failed"))[0].error or "")
    assert asked(external(failed_states=["failed"], soft_fail=True), seen("failed"))[0].kind == (
        "skipped"
    )


def test_external_tasks_and_groups() -> None:
    two = external(external_task_ids=["a", "b"], skipped_states=["skipped"])
    outcome, request = asked(two, seen("running", a=["success"], b=["success"]))
    assert (outcome.kind, request.task_ids) == ("success", ["a", "b"])
    assert asked(two, seen("running", a=["success"], b=["skipped"]))[0].kind == "skipped"
    outcome, _ = asked(two, seen("running", a=["success"]))
    assert outcome.defer is not None
    assert msgspec.json.decode(outcome.defer.kwargs)["task_ids"] == ["a", "b"]
    group = external(external_task_group_id="g")
    outcome, request = asked(group, seen("running", LOGICAL, **{"g.a": ["success"]}))
    assert (outcome.kind, request.group_id) == ("success", "g")
    outcome, _ = asked(group, Reply())  # not parsed yet: it looks again, without a slot
    assert outcome.defer is not None
    assert outcome.defer.lane == "timer"


def test_external_dates() -> None:
    delta = external(execution_delta=timedelta(hours=1))
    assert asked(delta, seen("running"))[1].logical_dates == [LOGICAL - 3_600_000_000]

    def both(date: datetime, ds: str) -> list[Any]:
        return [date, f"{ds}T00:00:00"]

    several = asked(external(execution_date_fn=both), seen("success"))
    assert several[1].logical_dates == [LOGICAL, LOGICAL - 3 * 3_600_000_000]
    assert several[0].kind == "deferred"
    assert several[0].defer is not None
    assert several[0].defer.key == "roost:run/other"
    assert "no logical date" in (asked(external(), logical_date=None)[0].error or "")


def test_external_existence() -> None:
    checks = external(check_existence=True, external_task_id="a")
    assert "there is no DAG 'other'" in (asked(checks, Reply())[0].error or "")
    assert "has no task 'a'" in (asked(checks, seen("running"))[0].error or "")
    group = external(check_existence=True, external_task_group_id="g")
    assert "has no group 'g'" in (asked(group, seen("running"))[0].error or "")
    assert asked(external(external_task_id="a"), Reply())[0].kind == "deferred"


def test_external_waits_in_the_three_ways() -> None:
    outcome, _ = asked(external(mode="reschedule"), seen("running"))
    assert outcome.defer is not None
    assert outcome.defer.lane == "timer"
    task = external()
    assert complete(task, "success", r="success").kind == "success"
    assert complete(task, "skipped", r="success").kind == "skipped"
    assert complete(external(soft_fail=True), "failed", r="failed").kind == "skipped"
    assert complete(task, "failed", r="failed").kind == "failed"


def test_external_arguments() -> None:
    with pytest.raises(DagError, match="give one of external_task_id"):
        external(external_task_id="a", external_task_ids=["b"])
    with pytest.raises(DagError, match="execution_delta or execution_date_fn"):
        external(execution_delta=timedelta(1), execution_date_fn=lambda d: d)
    with pytest.raises(DagError, match="only one of them"):
        external(failed_states=["success"])
