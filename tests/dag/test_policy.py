"""Code of the author's own that decides: weights (H24) and retries (H13)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from roost.dag import PriorityWeightStrategy, RetryPolicy
from roost.dag.operator import BaseOperator
from roost.dag.serialize import serialize_dag
from roost.dag.weights import effective_weights
from roost.exceptions import DagError, FailTask
from roost.operators import EmptyOperator
from tests.dag.case import a_dag, run


class Deep(PriorityWeightStrategy):
    """Ten for each direct child."""

    def get_weight(self, task: BaseOperator) -> int:
        return 10 * len(task.downstream_task_ids)


class Broken(PriorityWeightStrategy):
    """Says nothing that could be compared."""

    def get_weight(self, task: BaseOperator) -> Any:
        return "high"


@pytest.mark.parametrize("rule", [Deep, Deep()])
def test_h24_a_strategy_of_ones_own_weighs_its_task(rule: Any) -> None:
    """Others go on to count the task by its own priority_weight (S42)."""
    with a_dag() as dag:
        first = EmptyOperator(task_id="first")
        deep = EmptyOperator(task_id="deep", weight_rule=rule, priority_weight=5)
        first >> deep >> [EmptyOperator(task_id="x"), EmptyOperator(task_id="y")]
    tasks = serialize_dag(dag).tasks
    weights = dict(zip([t.task_id for t in tasks], effective_weights(tasks), strict=True))
    assert weights == {"first": 8, "deep": 20, "x": 1, "y": 1}


def test_h24_a_strategy_that_gives_no_number_is_an_error_of_the_file() -> None:
    with a_dag() as dag:
        EmptyOperator(task_id="t", weight_rule=Broken())
    with pytest.raises(
        DagError, match=r"task 't': get_weight\(\) of Broken must be a whole number"
    ):
        serialize_dag(dag)


class Fails(BaseOperator):
    """Raises what it is given."""

    error: BaseException

    def execute(self, context: dict[str, Any]) -> None:
        raise self.error


def outcome_of(error: BaseException, policy: RetryPolicy) -> tuple[bool, int | None]:
    task = Fails(task_id="t", dag=a_dag(), retry_policy=policy)
    task.error = error
    outcome, _ = run(task)
    assert outcome.kind == "failed"
    return outcome.retryable, outcome.retry_delay_us


POLICY = RetryPolicy(
    {
        ValueError: "fail",
        UnicodeError: "retry",
        OSError: timedelta(seconds=30),
        ConnectionError: timedelta(seconds=2),
    }
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("wrong"), (False, None)),
        (UnicodeError("a ValueError, and the nearer rule counts"), (True, None)),
        (OSError("disk"), (True, 30_000_000)),
        (ConnectionResetError("a ConnectionError before it is an OSError"), (True, 2_000_000)),
        (KeyError("no rule"), (True, None)),
        (FailTask("says so itself"), (False, None)),
    ],
)
def test_h13_a_policy_says_what_an_exception_means(error: BaseException, expected: Any) -> None:
    assert outcome_of(error, POLICY) == expected


class Own(RetryPolicy):
    """By number of the try; and once it is broken."""

    def decide(self, error: BaseException, try_number: int) -> Any:
        if str(error) == "raise":
            raise LookupError
        return timedelta(seconds=try_number) if str(error) == "number" else "soon"


def test_h13_a_policy_that_is_broken_is_as_if_there_were_none() -> None:
    assert outcome_of(RuntimeError("number"), Own({})) == (True, 1_000_000)
    assert outcome_of(RuntimeError("raise"), Own({})) == (True, None)
    assert outcome_of(RuntimeError("word"), Own({})) == (True, None)


def test_h13_a_policy_is_checked_where_it_is_made() -> None:
    with pytest.raises(DagError, match="not a class of exceptions"):
        RetryPolicy({"ValueError": "fail"})  # type: ignore[dict-item]
    with pytest.raises(DagError, match="'retry', 'fail' or a timedelta, not 'later'"):
        RetryPolicy({ValueError: "later"})  # type: ignore[dict-item]
    with pytest.raises(DagError, match="retry_policy must be a RetryPolicy"):
        EmptyOperator(task_id="t", retry_policy={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "stored"),
    [(False, (False, 2.0)), (True, (True, 2.0)), (1, (True, 1.0)), (2.5, (True, 2.5))],
)
def test_h13_exponential_backoff_may_have_its_own_factor(given: Any, stored: Any) -> None:
    with a_dag() as dag:
        EmptyOperator(task_id="t", retry_exponential_backoff=given)
    (task,) = serialize_dag(dag).tasks
    assert (task.retry_exponential_backoff, task.retry_multiplier) == stored


def test_h13_retries_not_given_are_those_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROOST__CORE__DEFAULT_TASK_RETRIES", "4")
    with a_dag() as dag:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", retries=0)
    with a_dag(default_args={"retries": 2}) as other:
        EmptyOperator(task_id="c")
    tasks = [*serialize_dag(dag).tasks, *serialize_dag(other).tasks]
    assert [task.retries for task in tasks] == [4, 0, 2]
