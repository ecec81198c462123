"""What the scheduler gets to see of a DAG."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from roost.dag import DAG, Param, TaskGroup
from roost.dag.model import SerializedDag, SerializedTask
from roost.dag.serialize import serialize_dag
from roost.exceptions import CronError, DagError
from roost.operators import BaseOperator, EmptyOperator
from roost.support.clock import to_us
from tests.dag.case import a_dag

US = 1_000_000


def test_every_knob_arrives() -> None:
    with a_dag() as dag:
        EmptyOperator(
            task_id="t",
            owner="ann",
            trigger_rule="all_done",
            pool="p",
            pool_slots=2,
            queue="q",
            priority_weight=-3,
            weight_rule="absolute",
            retries=4,
            retry_delay=1.5,
            retry_exponential_backoff=True,
            max_retry_delay=timedelta(minutes=1),
            execution_timeout=timedelta(seconds=9),
            wait_for_downstream=True,
            task_concurrency=3,
            max_active_tis_per_dagrun=2,
            doc_md="# doc",
            doc="plain",
            params={"a": timedelta(1)},
            start_date=datetime(2026, 2, 1, tzinfo=UTC),
        )
    (task,) = serialize_dag(dag).tasks
    shown = msgspec.structs.asdict(task)
    extra = shown.pop("extra")
    untouched = msgspec.structs.asdict(SerializedTask("t", "EmptyOperator"))
    del untouched["extra"]
    assert shown == untouched | {
        "task_id": "t",
        "operator": "EmptyOperator",
        "downstream": [],
        "trigger_rule": "all_done",
        "owner": "ann",
        "pool": "p",
        "pool_slots": 2,
        "queue": "q",
        "priority_weight": -3,
        "weight_rule": "absolute",
        "retries": 4,
        "retry_delay_us": 1_500_000,
        "retry_exponential_backoff": True,
        "max_retry_delay_us": 60 * US,
        "execution_timeout_us": 9 * US,
        "depends_on_past": True,  # S89: wait_for_downstream implies it
        "wait_for_downstream": True,
        "max_active_tis_per_dag": 3,
        "max_active_tis_per_dagrun": 2,
        "start_date": to_us(datetime(2026, 2, 1, tzinfo=UTC)),
        "empty": True,
    }
    assert extra == {
        "doc_md": "# doc",
        "doc": "plain",
        "params": {"a": {"$roost": "timedelta", "value": [1, 0, 0]}},
    }


def test_the_dag_itself_and_its_json() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with DAG(
        "d",
        "what it is",
        schedule="@daily",
        start_date=start,
        end_date=start + timedelta(days=9),
        catchup=True,
        max_active_runs=2,
        max_active_tasks=3,
        dagrun_timeout=timedelta(hours=1),
        fail_fast=True,
        max_consecutive_failed_dag_runs=3,
        params={"n": Param(1, "how many", type="integer")},
        tags=["b", "a"],
        doc_md="doc",
        is_paused_upon_creation=True,
    ) as dag:
        with TaskGroup("g", tooltip="tip"):
            a = EmptyOperator(task_id="a", owner="x")
        b = EmptyOperator(task_id="b", owner="y")
        b >> a
    made = serialize_dag(dag)
    assert [task.task_id for task in made.tasks] == ["b", "g.a"]
    assert made.tasks[0].downstream == ["g.a"]
    assert made.tasks[1].extra["task_group"] == "g"
    assert (made.timetable.kind, made.timetable.summary) == ("cron", "@daily")
    assert (made.start_date, made.end_date) == (to_us(start), to_us(start + timedelta(days=9)))
    assert (made.catchup, made.max_active_runs, made.max_active_tasks) == (True, 2, 3)
    assert made.dagrun_timeout_us == 3600 * US
    assert (made.fail_fast, made.max_consecutive_failed_dag_runs) == (True, 3)
    assert (made.owners, made.tags, made.is_paused_upon_creation) == (["x", "y"], ["a", "b"], True)
    assert (made.description, made.doc_md, made.params) == ("what it is", "doc", {"n": 1})
    assert made.extra["task_groups"] == {"g": "tip"}
    assert made.extra["params"]["n"]["description"] == "how many"
    again = msgspec.json.decode(msgspec.json.encode(made), type=SerializedDag)
    assert again == made


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (UTC, "UTC"),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (timezone(timedelta(hours=2)), "Etc/GMT-2"),
        (timezone(timedelta(hours=-5)), "Etc/GMT+5"),
        (timezone(timedelta(0)), "UTC"),
        (None, "America/New_York"),
    ],
)
def test_h14_the_zone_of_start_date_is_the_zone_of_the_cron(
    zone: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST__CORE__DEFAULT_TIMEZONE", "America/New_York")
    start = datetime(2026, 1, 1, tzinfo=zone)
    made = serialize_dag(DAG("d", schedule="0 3 * * *", start_date=start))
    assert made.timetable.timezone == name
    aware = start if zone else start.replace(tzinfo=ZoneInfo("America/New_York"))
    assert made.start_date == to_us(aware)


def test_a_zone_without_a_name_is_refused() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    with pytest.raises(DagError, match=r"DAG 'd': time zone .* has no IANA name"):
        serialize_dag(DAG("d", start_date=datetime(2026, 1, 1, tzinfo=zone)))


def test_a_start_date_from_default_args_bounds_the_schedule_alone() -> None:
    """A run by hand for a date before it runs its tasks."""
    start = datetime(2026, 2, 1, tzinfo=UTC)
    with DAG("d", schedule="@daily", default_args={"start_date": start}) as dag:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", start_date=start + timedelta(1))
    first, second = serialize_dag(dag).tasks
    assert (first.start_date, second.start_date) == (None, to_us(start + timedelta(1)))


def test_a_bad_cron_names_the_dag() -> None:
    with pytest.raises(CronError, match="DAG 'd'"):
        serialize_dag(DAG("d", schedule="0 3 * *"))


def test_params_that_cannot_be_stored_name_the_dag() -> None:
    with pytest.raises(DagError, match=r"DAG 'd': params\.x|DAG 'd': params"):
        serialize_dag(DAG("d", params={"x": object()}))


def test_h27_only_an_operator_without_a_body_is_empty() -> None:
    class Hooked(EmptyOperator):
        def post_execute(self, context: dict[str, Any], result: Any = None) -> None: ...

    class Other(BaseOperator): ...

    class Busy(EmptyOperator):
        def execute(self, context: dict[str, Any]) -> None: ...

    with a_dag() as dag:
        EmptyOperator(task_id="a")
        Hooked(task_id="b")
        Other(task_id="c")
        Busy(task_id="e")
    assert [task.empty for task in serialize_dag(dag).tasks] == [True, False, False, False]


def test_edges_set_by_late_arguments_are_found() -> None:
    class Late(BaseOperator):
        template_fields = ("value",)
        value: Any = None

    with a_dag() as dag:
        first = EmptyOperator(task_id="z")
        late = Late(task_id="a")
    late.value = [first.output]
    made = serialize_dag(dag)
    assert [(task.task_id, task.downstream) for task in made.tasks] == [("z", ["a"]), ("a", [])]


def test_a_continuous_dag_has_one_run_at_a_time_h14() -> None:
    """H14: ``@continuous`` runs follow each other, whatever max_active_runs says."""
    assert serialize_dag(DAG("d", schedule="@continuous", max_active_runs=5)).max_active_runs == 1
    assert serialize_dag(DAG("d", schedule="@daily", max_active_runs=5)).max_active_runs == 5
