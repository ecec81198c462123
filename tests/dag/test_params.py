"""Params: defaults, schemas, who wins, and one line for what breaks a rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roost.dag import DAG, Param, dag, task
from roost.dag.operator import BaseOperator
from roost.dag.param import param_scopes
from roost.dag.param_check import check_conf
from roost.dag.parse import parse_dag_file
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError, ParamError
from roost.operators import EmptyOperator
from roost.support import typedjson
from tests.dag.case import a_dag, probe, raw, run


def seen(made: DAG, conf: dict[str, Any] | None = None, **of_task: Any) -> Any:
    """``params`` as a task sees them."""
    show = probe("show", lambda context: context["params"], dag=made, params=of_task)
    outcome, values = run(show, conf=raw(conf or {}))
    assert outcome.error is None, outcome.error
    return values["return_value"]


def test_dag_then_task_then_conf() -> None:
    """Unknown keys of a conf are welcome."""
    made = a_dag(params={"a": 1, "b": Param(2, "why"), "c": 3})
    assert seen(made, {"c": 30, "d": 40}, b=20) == {"a": 1, "b": 20, "c": 30, "d": 40}


def test_conf_that_may_not_override(monkeypatch: pytest.MonkeyPatch) -> None:
    """``core.dag_run_conf_overrides_params = false``."""
    monkeypatch.setenv("ROOST__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS", "false")
    assert seen(a_dag(params={"a": 1}), {"a": 2, "b": 3}) == {"a": 1}
    assert seen(a_dag(), {"a": 2}) == {}


WRONG: list[tuple[Param, Any, str]] = [
    (
        Param(5, type="integer", maximum=10),
        99,
        "x must be smaller than or equal to 10 (rule maximum: 10)",
    ),
    (Param("a", enum=["a", "b"]), "c", "x must be one of ['a', 'b'] (rule enum: ['a', 'b'])"),
    (Param("a", type="string"), 3, "x must be string (rule type: 'string')"),
    (Param([1], type="array", items={"type": "integer"}), [1, "z"], "x[1] must be integer"),
    (Param("ab", pattern="^a"), "b", "x must match pattern ^a"),
    (Param(schema={"type": "object", "required": ["k"]}), {}, "x must contain ['k'] properties"),
    (Param("2026-01-01", type="string", format="date"), "soon", "x must be date"),
]


@pytest.mark.parametrize(("param", "value", "message"), WRONG, ids=lambda item: str(item)[:20])
def test_a_value_that_breaks_a_rule_is_one_line(param: Param, value: Any, message: str) -> None:
    """On trigger and in the task: the line names the param, the value and the rule."""
    made = a_dag(params={"x": param}, schedule=None)
    show = probe("show", lambda context: None, dag=made)
    with pytest.raises(ParamError) as caught:
        check_conf(param_scopes(serialize_dag(made)), {"x": value})
    assert str(caught.value).startswith(f"param 'x' = {value!r}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    outcome, _ = run(show, conf=raw({"x": value}))
    assert outcome.kind == "failed"
    assert message in (outcome.error or "")


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (Param(99, maximum=10), "param 'x' = 99: x must be smaller than or equal to 10"),
        (Param(1, type="whole"), "param 'x': its schema is wrong: Unknown type"),
        (Param(type="string", pattern="("), "param 'x': its schema is wrong"),
        (Param(1, schema={"$ref": "http://localhost/s"}), "must not refer to what lies outside"),
        (Param(1, enum={1}), "its schema is wrong"),
    ],
    ids=str,
)
def test_a_default_or_schema_that_is_wrong_is_an_import_error(param: Param, message: str) -> None:
    made = a_dag(params={"x": param}, schedule=None)
    EmptyOperator(task_id="t", dag=made)
    with pytest.raises(DagError, match="DAG 'd': ") as caught:
        serialize_dag(made)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("param", [Param(type="string"), Param(None, type="string"), Param()])
def test_a_param_without_default_must_come_with_the_run(param: Param) -> None:
    """A schedule brings no value, so such a DAG is refused."""
    made = a_dag(params={"x": param}, schedule=None)
    show = probe("show", lambda context: context["params"]["x"], dag=made)
    with pytest.raises(
        ParamError, match="param 'x' has no default; give a value in the run's conf"
    ):
        check_conf(param_scopes(serialize_dag(made)), {})
    check_conf(param_scopes(serialize_dag(made)), {"x": "given"})
    assert run(show, conf=raw({"x": "given"}))[1] == {"return_value": "given"}
    assert "param 'x' has no value" in (run(show)[0].error or "")
    daily = a_dag(params={"x": param}, schedule="@daily")
    with pytest.raises(DagError, match="runs of a schedule bring no value"):
        serialize_dag(daily)


def test_none_is_a_default_where_it_fits() -> None:
    made = a_dag(params={"x": Param(None, type=["null", "string"]), "y": None}, schedule="@daily")
    serialize_dag(made)
    assert seen(made) == {"x": None, "y": None}


def test_a_task_keeps_the_schema_of_its_dag_and_may_have_its_own() -> None:
    made = a_dag(params={"x": Param(1, type="integer")}, schedule=None)
    EmptyOperator(task_id="bad", params={"x": "one"}, dag=made)
    with pytest.raises(DagError, match="param 'x' = 'one': x must be integer"):
        serialize_dag(made)
    own = a_dag(schedule=None)
    EmptyOperator(task_id="t", params={"y": Param(1, minimum=0)}, dag=own)
    with pytest.raises(ParamError, match="param 'y' = -1: y must be bigger than or equal to 0"):
        check_conf(param_scopes(serialize_dag(own)), {"y": -1})


def test_arguments_of_a_dag_function_are_params() -> None:
    """With a Param as the default, or with a schema in ``params``."""

    @task
    def show(limit: int, size: int) -> list[int]:
        return [limit, size]

    @dag(schedule=None, params={"size": Param(1, maximum=9)})
    def made(limit: Any = Param(3, type="integer"), size: int = 2) -> None:  # noqa: B008
        show(limit, size)

    found = made()
    stored = serialize_dag(found)
    assert stored.params == {"limit": 3, "size": 2}
    assert run(found.get_task("show"), conf=raw({"limit": 7}))[1] == {"return_value": [7, 2]}
    for conf in ({"limit": "x"}, {"size": 10}):
        with pytest.raises(ParamError):
            check_conf(param_scopes(stored), conf)


def test_what_is_stored_tells_the_whole_schema() -> None:
    made = a_dag(
        params={"n": Param(1, "how many", type="integer", title="N"), "m": Param(), "p": 4},
        schedule=None,
    )
    EmptyOperator(task_id="t", dag=made)
    stored = serialize_dag(made)
    assert stored.params == {"n": 1, "p": 4}
    assert stored.extra["params"] == {
        "n": {"description": "how many", "schema": {"type": "integer", "title": "N"}},
        "m": {"description": None, "schema": {}, "required": True},
    }
    assert typedjson.decode(typedjson.encode(stored.extra["params"])) == stored.extra["params"]


def test_the_import_error_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "d.py"
    file.write_text(
        "from roost.dag import DAG, Param\nfrom roost.operators import EmptyOperator\n"
        "with DAG('d', params={'n': Param('x', type='integer')}):\n    EmptyOperator(task_id='t')\n"
    )
    error = parse_dag_file(str(file), str(tmp_path)).error
    assert error == "DAG 'd': param 'n' = 'x': n must be integer (rule type: 'integer')"


def test_an_operator_without_params_pays_nothing() -> None:
    """No schema, no checker: it is not even imported."""
    assert seen(a_dag()) == {}
    assert BaseOperator(task_id="t").params == {}
