"""DAG objects: assignment, ids, default_args, cycles (S5-S11)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from roost.dag import DAG, TaskGroup, TriggerRule
from roost.dag.model import TriggerRule as TriggerRuleText
from roost.dag.operator import BaseOperator
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from tests.dag.case import a_dag


class Priced(BaseOperator):
    """Has an argument of its own, and passes one on explicitly."""

    def __init__(self, *, price: int, currency: str = "EUR", **kwargs: Any) -> None:
        super().__init__(pool="fixed", **kwargs)
        self.price = price
        self.currency = currency


def test_s6_default_args_fill_what_a_task_leaves_out() -> None:
    with a_dag(default_args={"owner": "ann", "retries": 2, "price": 5, "unknown": 1}):
        op = Priced(task_id="a")  # type: ignore[call-arg]
    assert (op.owner, op.retries, op.price, op.currency) == ("ann", 2, 5, "EUR")


def test_s6_an_explicit_argument_wins_even_one_that_a_subclass_passes_on() -> None:
    with a_dag(default_args={"owner": "ann", "pool": "other", "price": 5}):
        op = Priced(task_id="a", owner="bob", price=1)
    assert (op.owner, op.price, op.pool) == ("bob", 1, "fixed")


def test_s6_default_args_apply_through_dag_argument_and_group_too() -> None:
    dag = a_dag(default_args={"owner": "ann"})
    assert EmptyOperator(task_id="a", dag=dag).owner == "ann"
    assert EmptyOperator(task_id="b", task_group=TaskGroup("g", dag=dag)).owner == "ann"
    assert EmptyOperator(task_id="c", dag=dag, default_args={"owner": "bob"}).owner == "bob"


def test_s6_a_second_task_is_not_affected_by_the_first() -> None:
    with a_dag(default_args={"owner": "ann"}):
        Priced(task_id="a", price=1)
    assert Priced(task_id="b", price=1).owner == "roost"


def test_s7_with_block_assigns_new_tasks() -> None:
    with a_dag() as dag:
        op = EmptyOperator(task_id="op")
        with a_dag("inner") as inner:
            nested = EmptyOperator(task_id="op")
        after = EmptyOperator(task_id="after")
    outside = EmptyOperator(task_id="outside")
    assert op.dag is dag
    assert nested.dag is inner
    assert after.dag is dag
    assert not outside.has_dag()


def test_s7_an_exception_ends_the_block() -> None:
    with pytest.raises(KeyError), a_dag():
        raise KeyError
    assert not EmptyOperator(task_id="op").has_dag()


def test_s8_three_ways_of_assignment() -> None:
    dag = a_dag()
    by_argument = EmptyOperator(task_id="a", dag=dag)
    later = EmptyOperator(task_id="b")
    later.dag = dag
    linked = EmptyOperator(task_id="c")
    later >> linked
    assert {by_argument.dag, later.dag, linked.dag} == {dag}
    assert dag.task_ids == ["a", "b", "c"]


def test_s8_once_assigned_it_cannot_be_moved() -> None:
    dag = a_dag()
    op = EmptyOperator(task_id="a", dag=dag)
    op.dag = dag  # the same again is allowed
    with pytest.raises(DagError, match="can not be changed"):
        op.dag = a_dag("other")
    with pytest.raises(TypeError, match="must be a DAG"):
        op.dag = "other"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        op.dag = None  # type: ignore[assignment]


def test_s9_linked_tasks_must_be_in_one_dag() -> None:
    one = EmptyOperator(task_id="a", dag=a_dag("one"))
    two = EmptyOperator(task_id="b", dag=a_dag("two"))
    with pytest.raises(DagError, match="only tasks of one DAG"):
        one >> two
    with pytest.raises(DagError, match="in no DAG yet"):
        EmptyOperator(task_id="x") >> EmptyOperator(task_id="y")


def test_s9_an_unassigned_task_inherits_upstream_and_downstream() -> None:
    dag = a_dag()
    known = EmptyOperator(task_id="known", dag=dag)
    down, up = EmptyOperator(task_id="down"), EmptyOperator(task_id="up")
    known >> down
    known << up
    assert down.dag is dag
    assert up.dag is dag


def test_s11_a_cycle_is_refused_and_spelled_out() -> None:
    with a_dag() as dag:
        a, b, c = (EmptyOperator(task_id=name) for name in "abc")
        a >> b >> c >> b
    with pytest.raises(DagError, match=r"DAG 'd' has a cycle: b -> c -> b"):
        serialize_dag(dag)


def test_s11_a_task_on_itself_is_a_cycle() -> None:
    with a_dag() as dag:
        a = EmptyOperator(task_id="a")
        a >> a
    with pytest.raises(DagError, match="a -> a"):
        dag.topological_sort()


def test_duplicate_task_id_is_refused() -> None:
    with a_dag():
        EmptyOperator(task_id="a")
        with pytest.raises(DagError, match="already has a task or group 'a'"):
            EmptyOperator(task_id="a")
        with pytest.raises(DagError, match="already has a task or group 'a'"):
            TaskGroup("a")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "x" * 251, 3, None, "a\n"])
def test_ids_are_checked(name: Any) -> None:
    with pytest.raises(DagError, match="must be 1 to 250"):
        DAG(name)
    with pytest.raises(DagError, match="task_id"):
        EmptyOperator(task_id=name)


@pytest.mark.parametrize("name", ["a", "A.b:c+d-e_9", "x" * 250])
def test_allowed_ids(name: str) -> None:
    assert DAG(name).dag_id == name


def test_schedule_interval_is_schedule() -> None:
    assert DAG("a", schedule_interval="@daily").schedule == "@daily"
    assert DAG("a", schedule_interval=None).schedule is None
    assert DAG("a", schedule=timedelta(days=1)).schedule == timedelta(days=1)
    assert DAG("a").schedule is None
    with pytest.raises(DagError, match="not both"):
        DAG("a", schedule="@daily", schedule_interval="@hourly")
    with pytest.raises(DagError, match="schedule must be"):
        DAG("a", schedule=5)  # type: ignore[arg-type]


def test_dates_may_come_from_default_args() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert DAG("a", default_args={"start_date": start}).start_date == start
    with pytest.raises(DagError, match="start_date must be a datetime"):
        DAG("a", start_date="2026-01-01")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"trigger_rule": "all_sucess"}, "unknown trigger_rule 'all_sucess'; one of all_success"),
        ({"weight_rule": "up"}, "unknown weight_rule"),
        ({"pool_slots": 0}, "pool_slots must be 1 or more"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"retries": "3"}, "retries must be a whole number"),
        ({"priority_weight": 1.5}, "priority_weight must be a whole number"),
        ({"pool": ""}, "pool must be a name"),
        ({"retry_delay": "soon"}, "retry_delay must be a timedelta or seconds"),
        ({"max_active_tis_per_dag": 0}, "max_active_tis_per_dag must be 1 or more"),
        ({"max_active_tis_per_dag": 1, "task_concurrency": 2}, "or task_concurrency, not both"),
        ({"max_active_tis_per_dagrun": "2"}, "max_active_tis_per_dagrun must be a whole number"),
        ({"execution_timeout": timedelta(seconds=-1)}, "execution_timeout must not be negative"),
    ],
)
def test_s77_wrong_knobs_name_task_and_knob(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(DagError, match=message) as caught:
        EmptyOperator(task_id="me", **argument)
    assert "task 'me'" in str(caught.value)


def test_s85_older_rule_names() -> None:
    assert EmptyOperator(task_id="a", trigger_rule="dummy").trigger_rule == "always"
    renamed = EmptyOperator(task_id="b", trigger_rule="none_failed_or_skipped")
    assert renamed.trigger_rule == "none_failed_min_one_success"


def test_an_unknown_argument_is_refused_where_the_task_is_made() -> None:
    with pytest.raises(TypeError, match="retrys"):
        EmptyOperator(task_id="a", retrys=3)  # type: ignore[call-arg]


def test_h25_an_executor_of_its_own_is_refused_with_the_remedy() -> None:
    with pytest.raises(DagError, match=r"'t': executor='other' is not available.*queue="):
        EmptyOperator(task_id="t", executor="other")


@pytest.mark.parametrize("name", ["executor_config", "resources"])
def test_h25_what_only_other_executors_heed_is_refused_unless_it_is_empty(name: str) -> None:
    empty: dict[str, Any] = {name: {}}
    asking: dict[str, Any] = {name: {"a": 1}}
    assert EmptyOperator(task_id="t", **empty).task_id == "t"
    with pytest.raises(DagError, match=rf"'t': {name}=\{{'a': 1\}} has no effect here; .*queue="):
        EmptyOperator(task_id="t", **asking)


def test_a_dag_takes_the_older_names_of_its_limits_and_what_is_for_web_pages() -> None:
    made = a_dag(
        concurrency=8,
        fail_stop=True,
        orientation="LR",
        default_view="graph",
        access_control={"team": {"can_read"}},
        owner_links={"ann": "mailto:ann@example.org"},
        dag_display_name="The DAG",
    )
    assert (made.max_active_tasks, made.fail_fast) == (8, True)
    with pytest.raises(DagError, match="concurrency"):
        a_dag(concurrency=0)


def test_s77_every_rule_has_a_constant_and_is_kept_as_text() -> None:
    assert {str(rule) for rule in TriggerRule} == set(get_args(TriggerRuleText))
    made = EmptyOperator(task_id="t", trigger_rule=TriggerRule.NONE_FAILED_OR_SKIPPED)
    assert made.trigger_rule == "none_failed_min_one_success"
    assert type(made.trigger_rule) is str
