"""H17: how mapped tasks and groups are written, what the scheduler is told, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from roost.dag import DAG, TaskGroup, task, task_group
from roost.dag.mapped import MappedOperator
from roost.dag.model import Length, SerializedDag, SerializedTask
from roost.dag.operator import BaseOperator
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError
from roost.operators import BashOperator, EmptyOperator, PythonOperator
from tests.dag.case import a_dag


@task
def add(x: Any, y: Any = 10) -> Any:
    return (x, y)


@task
def make() -> list[int]:
    return [1, 2, 3]


def serialized(dag: DAG) -> dict[str, SerializedTask]:
    described = serialize_dag(dag)
    # As it comes out of the database.
    data = msgspec.json.decode(msgspec.json.encode(described), type=SerializedDag)
    return {one.task_id: one for one in data.tasks}


def factors(dag: DAG, task_id: str) -> list[Length]:
    expand = serialized(dag)[task_id].expand
    assert expand is not None
    return expand.factors


def test_h17_classic_operators_expand_over_literals() -> None:
    with a_dag(default_args={"retries": 3}) as dag:
        mapped = BashOperator.partial(task_id="b", pool="p").expand(bash_command=["a", "b", "c"])
        mapped >> EmptyOperator(task_id="end")
    assert isinstance(mapped, MappedOperator)
    assert factors(dag, "b") == [Length("literal", count=3)]
    told = serialized(dag)["b"]
    assert (told.operator, told.retries, told.pool) == ("BashOperator", 3, "p")
    assert told.downstream == ["end"]


def test_h17_functions_expand_over_results_and_are_downstream_of_them() -> None:
    with a_dag() as dag:
        add.partial(y=1).expand(x=make())
    assert factors(dag, "add") == [Length("xcom", task_id="make")]
    assert serialized(dag)["make"].downstream == ["add"]


def test_h17_several_arguments_are_a_product_in_their_order() -> None:
    with a_dag() as dag:
        add.expand(x=[1, 2], y={"a": 1, "b": 2, "c": 3})
    assert factors(dag, "add") == [Length("literal", count=2), Length("literal", count=3)]


def test_h17_kwargs_are_one_factor() -> None:
    with a_dag() as dag:
        add.expand_kwargs([{"x": 1}, {"x": 2, "y": 3}])
        PythonOperator.partial(task_id="p", python_callable=print).expand_kwargs(make())
    assert factors(dag, "add") == [Length("literal", count=2)]
    assert factors(dag, "p") == [Length("xcom", task_id="make")]


def test_h17_map_zip_and_concat_tell_their_length() -> None:
    with a_dag() as dag:
        made, other = make(), make.override(task_id="other")()
        add.override(task_id="map").expand(x=made.map(str))
        add.override(task_id="zip").expand(x=made.zip(other, [1]))
        add.override(task_id="fill").expand(x=made.zip(other, fillvalue=0))
        add.override(task_id="cat").expand(x=made.concat(other.map(str)))
    one, two = Length("xcom", task_id="make"), Length("xcom", task_id="other")
    assert factors(dag, "map") == [one]
    assert factors(dag, "zip") == [Length("zip", parts=[one, two, Length("literal", count=1)])]
    assert factors(dag, "fill") == [Length("zip", parts=[one, two], longest=True)]
    assert factors(dag, "cat") == [Length("concat", parts=[one, two])]
    assert serialized(dag)["other"].downstream == ["zip", "fill", "cat"]


def test_h17_a_mapped_task_over_a_mapped_task() -> None:
    with a_dag() as dag:
        add.override(task_id="second").expand(x=add.expand(x=[1, 2]))
    assert factors(dag, "second") == [Length("xcom", task_id="add")]


def test_h17_results_among_literals_and_constants_draw_edges() -> None:
    with a_dag() as dag:
        first, second = make(), make.override(task_id="second")()
        add.partial(y=second).expand(x=[1, first])
    assert serialized(dag)["make"].downstream == ["add"]
    assert serialized(dag)["second"].downstream == ["add"]


def test_h17_an_operator_stands_for_its_result() -> None:
    with a_dag() as dag:
        source = PythonOperator(task_id="source", python_callable=list)
        add.expand(x=source)
    assert factors(dag, "add") == [Length("xcom", task_id="source")]


def test_h17_mapped_groups() -> None:
    @task_group
    def load(name: str, mode: str) -> None:
        """What it does."""
        first = add.override(task_id="first")(name, mode)
        add.override(task_id="second")(first)

    with a_dag() as dag:
        group = load.partial(mode="m").expand(name=make())
        group >> EmptyOperator(task_id="end")
    told = serialize_dag(dag)
    assert told.mapped_groups["load"].factors == [Length("xcom", task_id="make")]
    tasks = serialized(dag)
    assert {name: one.mapped_group for name, one in tasks.items()} == {
        "make": None, "load.first": "load", "load.second": "load", "end": None,
    }  # fmt: skip
    assert tasks["load.first"].expand is None
    assert tasks["make"].downstream == ["load.first"]
    assert tasks["load.second"].downstream == ["end"]
    assert dag.group_dict["load"].tooltip == "What it does."


def test_h17_the_roots_of_a_mapped_group_wait_for_what_it_is_mapped_over() -> None:
    @task_group
    def load(name: Any) -> None:
        EmptyOperator(task_id="root") >> add.override(task_id="use")(name)

    with a_dag() as dag:
        load.expand(name=make())
    assert set(serialized(dag)["make"].downstream) == {"load.root", "load.use"}


def test_h17_override_groups_and_default_args_hold_for_mapped_tasks() -> None:
    with a_dag() as dag, TaskGroup("g", default_args={"pool": "p"}):
        add.override(task_id="other", retries=4).expand(x=[1])
        BashOperator.partial(task_id="b").expand(env=[{}, {}])
    tasks = serialized(dag)
    assert (tasks["g.other"].retries, tasks["g.other"].pool) == (4, "p")
    assert tasks["g.b"].pool == "p"


def test_h17_a_class_with_other_defaults_keeps_them_when_mapped() -> None:
    class Stubborn(BaseOperator):
        def __init__(self, *, x: int = 0, retries: int = 7, **kwargs: Any) -> None:
            super().__init__(retries=retries, **kwargs)

    with a_dag() as dag:
        Stubborn.partial(task_id="s").expand(x=[1, 2])
        Stubborn.partial(task_id="t", retries=1).expand(x=[1, 2])
    assert (serialized(dag)["s"].retries, serialized(dag)["t"].retries) == (7, 1)


def in_mapped_group() -> None:
    @task_group
    def outer(x: Any) -> None:
        add.expand(x=[1])

    outer.expand(x=[1])


def group_in_mapped_group() -> None:
    @task_group
    def inner(y: Any) -> None:
        add(y)

    @task_group
    def outer(x: Any) -> None:
        inner.expand(y=[1])

    outer.expand(x=[1])


BASH = BashOperator
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: add.expand(), "needs an argument to map over"),
    "nothing, classic": (lambda: BASH.partial(task_id="t").expand(), "needs an argument"),
    "a string": (lambda: add.expand(x="abc"), r"expand\(x=…\) needs a list, tuple or dict"),
    "a number": (lambda: add.expand(x=5), "not 5"),
    "a set": (lambda: add.expand(x={1, 2}), "needs a list, tuple or dict"),
    "unknown": (lambda: add.expand(z=[1]), "has no parameter 'z'"),
    "unknown, classic": (
        lambda: BASH.partial(task_id="t").expand(command=["a"]),
        "BashOperator has no argument 'command'",
    ),
    "unknown constant": (lambda: add.partial(z=1), "has no parameter 'z'"),
    "unknown constant, classic": (
        lambda: BASH.partial(task_id="t", comand=1),
        "BashOperator has no argument 'comand'",
    ),
    "unknown in kwargs": (lambda: add.expand_kwargs([{"z": 1}]), "has no parameter 'z'"),
    "positional": (lambda: add.expand([1]), "by name only"),
    "positional, classic": (lambda: BASH.partial(task_id="t").expand([1]), "by name only"),
    "both": (lambda: add.partial(x=1).expand(x=[2]), "x is given to partial"),
    "both, classic": (
        lambda: BASH.partial(task_id="t", env={}).expand(env=[{}]),
        "env is given to partial",
    ),
    "task_id": (
        lambda: BASH.partial(task_id="t").expand(task_id=["a"]),
        "task_id is given to partial",
    ),
    "no task_id": (lambda: BASH.partial(), "needs a task_id"),
    "not partial": (lambda: BASH.expand(bash_command=["a"]), "BashOperator.partial"),
    "a knob": (
        lambda: BASH.partial(task_id="t").expand(retries=[1, 2]),
        "retries is one for all instances",
    ),
    "dicts": (lambda: add.expand_kwargs([1]), "needs dicts with str keys, not 1"),
    "one dict": (lambda: add.expand_kwargs({"x": 1}), "a list of dicts, not one dict"),
    "too many": (lambda: add.expand(x=list(range(1025))), "1025 values, more than core.max_map"),
    "product": (lambda: add.expand(x=[0] * 40, y=[0] * 40), "1600 values, more than"),
    "in a mapped group": (in_mapped_group, "cannot be mapped inside the mapped group 'outer'"),
    "a group in one": (group_in_mapped_group, "cannot be mapped inside the mapped group 'outer'"),
    "map of a task": (lambda: make().map(add), "takes a plain function"),
    "zip of a number": (lambda: make().zip(5), r"zip\(\) needs a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_h17_what_cannot_be_mapped_is_refused_in_one_line(name: str) -> None:
    attempt, message = REFUSED[name]
    with a_dag(), pytest.raises(DagError, match=message) as refused:
        attempt()
    assert "\n" not in str(refused.value)


def test_h17_a_partial_that_is_never_expanded_is_refused() -> None:
    with a_dag() as dag:
        begun = BashOperator.partial(task_id="t")
    with pytest.raises(DagError, match=r"task 't': partial\(\) makes no task"):
        serialize_dag(dag)
    with dag:
        begun.expand(bash_command=["a"])
    assert factors(dag, "t") == [Length("literal", count=1)]


def test_h17_a_missing_argument_is_refused() -> None:
    with a_dag(), pytest.raises(TypeError, match=r"add\(\): missing a required argument: 'x'"):
        add.expand(y=[1])


def test_h17_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST__CORE__MAX_MAP_LENGTH", "2")
    with a_dag():
        add.expand(x=[1, 2])
        with pytest.raises(DagError, match="3 values"):
            add.expand(x=[1, 2, 3])
