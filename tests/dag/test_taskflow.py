"""@task and @dag: arguments, edges, results."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag import DAG, dag, get_current_context, task
from roost.dag.operator import BaseOperator
from roost.dag.xcom_arg import XComArg
from roost.exceptions import RoostException
from roost.operators import EmptyOperator, PythonOperator
from tests.dag.case import FakeSupervisor, a_dag, run


@task
def number(start: int = 1) -> int:
    """Give a number."""
    return start


@task
def add(a: int, b: int, ds: str = "") -> str:
    return f"{a + b} on {ds}"


def the(arg: XComArg) -> BaseOperator:
    return arg.operator


def test_results_become_edges_and_values() -> None:
    with a_dag() as flow:
        one = number()
        two = number(5)
        total = add(one, b=two)
    assert flow.task_ids == ["number", "number__1", "add"]
    assert the(total).upstream_task_ids == {"number", "number__1"}
    supervisor = FakeSupervisor()
    for arg in (one, two):
        run(the(arg), supervisor)
    assert run(the(total), supervisor)[1] == {"return_value": "6 on 2026-01-31"}
    assert the(one).doc_md == "Give a number."


def test_results_inside_containers_are_found_too() -> None:
    @task
    def collect(items: list[Any], **named: Any) -> list[Any]:
        return [items, named["extra"]]

    with a_dag():
        one, two = number(1), number(2)
        both = collect([{"x": one}, 9], extra=(two, "t"))
    assert the(both).upstream_task_ids == {"number", "number__1"}
    supervisor = FakeSupervisor()
    run(the(one), supervisor)
    run(the(two), supervisor)
    outcome, values = run(the(both), supervisor)
    assert outcome.error is None
    assert values == {"return_value": [[{"x": 1}, 9], (2, "t")]}


def test_results_link_by_bitshift_and_to_classic_operators() -> None:
    with a_dag() as flow:
        first = number()
        last = EmptyOperator(task_id="last")
        first >> last
        classic = PythonOperator(task_id="classic", python_callable=str, op_args=[first])
        mirrored = PythonOperator(task_id="m", python_callable=str, op_args=[classic.output])
    assert flow.get_task("last").upstream_task_ids == {"number"}
    assert classic.upstream_task_ids == {"number"}
    assert mirrored.upstream_task_ids == {"classic"}


def test_multiple_outputs_are_kept_one_by_one() -> None:
    @task
    def pair() -> dict[str, int]:
        return {"a": 1, "b": 2}

    with a_dag():
        made = pair()
        used = number.override(task_id="use")(made["b"])
    supervisor = FakeSupervisor()
    assert run(the(made), supervisor)[1] == {"a": 1, "b": 2, "return_value": {"a": 1, "b": 2}}
    assert run(the(used), supervisor)[1] == {"return_value": 2}


def test_multiple_outputs_need_a_dict() -> None:
    with a_dag():
        made = task(task_id="m", multiple_outputs=True)(lambda: [1])()
    outcome, _ = run(the(made))
    assert outcome.error is not None
    assert "must return a dict with str keys, not list" in outcome.error


def test_override_and_arguments_of_the_decorator() -> None:
    @task(retries=3, pool="p")
    def f() -> None: ...

    with a_dag(default_args={"retries": 1, "queue": "q"}):
        plain, changed = the(f()), the(f.override(task_id="other", retries=0)())
    assert (plain.task_id, plain.retries, plain.pool, plain.queue) == ("f", 3, "p", "q")
    assert (changed.task_id, changed.retries, changed.pool) == ("other", 0, "p")


def test_context_parameters_may_stand_anywhere() -> None:
    @task
    def mixed(ti: Any, x: int, run_id: str, *, params: Any) -> list[Any]:
        return [x, ti.task_id, run_id, params]

    with a_dag(params={"p": 1}):
        made = mixed(4)
    assert run(the(made))[1] == {"return_value": [4, "mixed", "scheduled__2026-01-31", {"p": 1}]}


def test_a_given_argument_wins_over_the_context() -> None:
    @task
    def f(ds: str) -> str:
        return ds

    with a_dag():
        mine = f("mine")
        named = f(ds="mine")
    assert run(the(mine))[1] == {"return_value": "mine"}
    assert run(the(named))[1] == {"return_value": "mine"}


def test_a_call_that_cannot_work_is_refused_at_once() -> None:
    with a_dag():
        with pytest.raises(TypeError, match=r"add\(\): missing a required argument: 'b'"):
            add(1)
        with pytest.raises(TypeError, match="unexpected keyword"):
            number(c=1)


def test_a_result_cannot_be_iterated_while_the_dag_is_defined() -> None:
    with a_dag():
        made = number()
        with pytest.raises(TypeError, match="cannot be iterated"):
            list(made)
        with pytest.raises(TypeError, match="only a str key"):
            made[0]  # type: ignore[index]


def test_the_plain_function_stays_callable() -> None:
    assert number.function(3) == 3
    assert number.__name__ == "number"


def test_s70_task_branch_skips_what_is_not_followed() -> None:
    @task.branch
    def choose() -> str:
        return "a"

    with a_dag():
        choice = choose()
        choice >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
    outcome, values = run(the(choice))
    assert outcome.skip == ["b"]
    assert values == {"return_value": "a"}


def test_current_context_only_while_running() -> None:
    @task
    def ask() -> Any:
        return get_current_context()["run_id"]

    with a_dag():
        made = ask()
    assert run(the(made))[1] == {"return_value": "scheduled__2026-01-31"}
    with pytest.raises(RoostException, match="only while a task is running"):
        get_current_context()


def test_dag_decorator_makes_a_dag_with_params() -> None:
    @dag(schedule="@daily", tags=["x"])
    def pipeline(limit: int = 3) -> None:
        """What it does."""
        number(limit)
        PythonOperator(task_id="text", python_callable=str, op_args=[f"limit {limit}"])

    made = pipeline(limit=4)
    assert isinstance(made, DAG)
    assert (made.dag_id, made.schedule, made.doc_md) == ("pipeline", "@daily", "What it does.")
    assert made.params == {"limit": 4}
    # As a whole argument the value keeps its type, in a text it becomes text.
    assert run(made.get_task("number"))[1] == {"return_value": 4}
    assert run(made.get_task("text"))[1] == {"return_value": "limit 4"}


def test_dag_decorator_bare() -> None:
    @dag
    def plain() -> None:
        number()

    assert plain().task_ids == ["number"]
