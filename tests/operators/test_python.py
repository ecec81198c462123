"""PythonOperator, BranchPythonOperator, EmptyOperator."""

from __future__ import annotations

from typing import Any

import pytest

from roost.exceptions import DagError
from roost.operators import DummyOperator, EmptyOperator, PythonOperator
from tests.dag.case import a_dag, run


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    task = PythonOperator(
        task_id="p", python_callable=function, op_args=args, op_kwargs=kwargs, dag=a_dag()
    )
    outcome, values = run(task)
    assert outcome.error is None, outcome.error
    return values.get("return_value")


def test_arguments_are_templated_and_given() -> None:
    assert call(lambda a, b: [a, b], "{{ ds }}", b=["{{ ds_nodash }}"]) == [
        "2026-01-31",
        ["20260131"],
    ]


def test_context_is_given_by_signature() -> None:
    assert call(lambda ds, ti: [ds, ti.task_id]) == ["2026-01-31", "p"]
    assert call(lambda **context: sorted(context)[:3]) == ["callback_url", "conf", "conn"]
    assert call(lambda x, *, run_id: [x, run_id], 1) == [1, "scheduled__2026-01-31"]
    assert call(lambda ds: ds, ds="given") == "given"
    assert call(lambda ds: ds, "given") == "given"
    assert call(lambda *args: list(args), 1, 2) == [1, 2]
    assert call(max, 3, 4) == 4


def test_templates_dict_is_rendered_into_the_context() -> None:
    task = PythonOperator(
        task_id="p",
        python_callable=lambda templates_dict: templates_dict["q"],
        templates_dict={"q": "{{ ds }}"},
        provide_context=True,
        dag=a_dag(),
    )
    assert run(task)[1] == {"return_value": "2026-01-31"}


def test_something_to_call_is_needed() -> None:
    with pytest.raises(DagError, match="python_callable must be a function, not 5"):
        PythonOperator(task_id="p", python_callable=5)  # type: ignore[arg-type]


def test_empty_does_nothing_under_both_names() -> None:
    assert DummyOperator is EmptyOperator
    outcome, values = run(EmptyOperator(task_id="e", dag=a_dag()))
    assert (outcome.kind, values) == ("success", {})
