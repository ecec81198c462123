"""Templates: fields, nesting, macros, sandbox, files (S58, S63-S68)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roost.dag import DAG, Param
from roost.dag.operator import BaseOperator
from roost.dag.template import prewarm
from roost.exceptions import DagError
from roost.operators import BashOperator
from roost.support.task_requests import ConnectionRecord
from tests.dag.case import FakeSupervisor, a_dag, raw, run


class Show(BaseOperator):
    """Returns its rendered fields."""

    template_fields = ("value",)

    def __init__(self, *, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value

    def execute(self, context: dict[str, Any]) -> Any:
        return self.value


def rendered(value: Any, supervisor: FakeSupervisor | None = None, **of_dag: Any) -> Any:
    changes = {"conf": raw(of_dag.pop("conf"))} if "conf" in of_dag else {}
    outcome, values = run(
        Show(task_id="t", value=value, dag=a_dag(**of_dag)), supervisor, **changes
    )
    if outcome.error:
        raise AssertionError(outcome.error)
    return values.get("return_value")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ ds }}", "2026-01-31"),
        ("{{ ds_nodash }}", "20260131"),
        ("{{ ts }}", "2026-01-31T03:00:00+00:00"),
        ("{{ ts_nodash }}", "20260131T030000"),
        ("{{ ts_nodash_with_tz }}", "20260131T030000+0000"),
        ("{{ yesterday_ds }} {{ tomorrow_ds }}", "2026-01-30 2026-02-01"),
        ("{{ next_ds }} {{ next_ds_nodash }}", "2026-02-01 20260201"),
        ("{{ logical_date.year }} {{ execution_date.month }}", "2026 1"),
        ("{{ data_interval_start | ds }}", "2026-01-31"),
        ("{{ data_interval_end | ts_nodash }}", "20260201T030000"),
        ("{{ dag_run.run_type }} {{ run_id }}", "scheduled scheduled__2026-01-31"),
        ("{{ ti.task_id }} {{ task_instance.try_number }} {{ task.owner }}", "t 1 roost"),
        ("{{ dag.dag_id }} {{ dispatch_id }}", "d 7"),
        ("{{ macros.ds_add(ds, -31) }}", "2025-12-31"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}", "31.01.26"),
        ("{{ macros.datetime(2026, 1, 1) + macros.timedelta(days=1) }}", "2026-01-02 00:00:00"),
        ("{% if params.p %}yes{% endif %}", "yes"),
        ("{# a comment #}x", "x"),
        ("no template", "no template"),
        ("{ds}", "{ds}"),
        ("line\n", "line\n"),
    ],
)
def test_s64_macros(text: str, expected: str) -> None:
    assert rendered(text, params={"p": 1}) == expected


def test_s64_the_date_after_a_manual_run_is_its_own() -> None:
    task = Show(task_id="t", value="{{ next_ds }} {{ next_execution_date }}", dag=a_dag())
    _, values = run(task, run_type="manual")
    assert values["return_value"] == "2026-01-31 2026-01-31 03:00:00+00:00"


def test_s64_containers_are_traversed() -> None:
    class Point(NamedTuple):
        x: str
        y: int

    value = {"a": ["{{ ds }}", ("{{ ds }}", 1)], "{{ ds }}": {"b": None, "c": 1.5}}
    assert rendered(value) == {
        "a": ["2026-01-31", ("2026-01-31", 1)],
        "{{ ds }}": {"b": None, "c": 1.5},
    }
    out: list[Any] = []

    class Keep(Show):
        def execute(self, context: dict[str, Any]) -> None:
            out.append(self.value)

    run(Keep(task_id="k", value=[Point("{{ ds }}", 1), {"{{ ds }}"}], dag=a_dag()))
    assert out == [[Point("2026-01-31", 1), {"2026-01-31"}]]


def test_s65_rendered_before_pre_execute() -> None:
    seen: list[str] = []

    class Ordered(Show):
        def pre_execute(self, context: dict[str, Any]) -> None:
            seen.append(self.value)

    run(Ordered(task_id="t", value="{{ ds }}", dag=a_dag()))
    assert seen == ["2026-01-31"]


class Part:
    """Something inside a templated field; ``template_fields`` decides about its own."""

    def __init__(self, text: str, inner: Any = None, fields: tuple[str, ...] = ("text",)) -> None:
        self.text = text
        self.inner = inner
        self.template_fields = fields


class Plain:
    """No template_fields."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def nested(value: Any) -> Any:
    found: list[Any] = []

    class Catch(Show):
        def execute(self, context: dict[str, Any]) -> None:
            found.append(self.value)

    outcome, _ = run(Catch(task_id="t", value=value, dag=a_dag()))
    assert outcome.error is None
    return found[0]


def test_s66_nested_objects_are_rendered_while_every_field_is_registered() -> None:
    deep = Part("{{ ds }}", Part("{{ ds }}", fields=("text",)), fields=("text", "inner"))
    out = nested([deep])
    assert out[0].text == "2026-01-31"
    assert out[0].inner.text == "2026-01-31"
    # The originals stay as they were written, for the next run of the same object.
    assert deep.text == "{{ ds }}"


def test_s66_an_unregistered_field_ends_the_recursion() -> None:
    out = nested(Part("x", Part("{{ ds }}"), fields=("text",)))
    assert out.inner.text == "{{ ds }}"
    assert nested(Plain(Part("{{ ds }}"))).inner.text == "{{ ds }}"


def test_s66_cycles_end_and_shared_objects_stay_shared() -> None:
    part = Part("{{ ds }}", fields=("text", "inner"))
    part.inner = part
    out = nested([part, part])
    assert out[0] is out[1]
    assert out[0].inner is out[0]
    assert out[0].text == "2026-01-31"
    items: list[Any] = ["{{ ds }}"]
    items.append(items)
    assert nested(items)[1][1][0] == "2026-01-31"


def test_s67_template_fields_may_be_an_instance_variable() -> None:
    class Own(BaseOperator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.text = "{{ ds }}"
            self.template_fields = ["text"]

        def execute(self, context: dict[str, Any]) -> str:
            return self.text

    assert run(Own(task_id="t", dag=a_dag()))[1] == {"return_value": "2026-01-31"}


def test_a_field_that_does_not_exist_is_named() -> None:
    class Wrong(BaseOperator):
        template_fields = ("nothing",)

    outcome, _ = run(Wrong(task_id="t", dag=a_dag()))
    assert "template_fields names 'nothing'" in (outcome.error or "")


def test_s67_one_field_without_its_comma_is_noticed() -> None:
    class Wrong(BaseOperator):
        template_fields = "query"

    with pytest.raises(DagError, match=r"write \('query',\)"):
        Wrong(task_id="t")


def test_s68_environment_arguments_macros_and_filters() -> None:
    assert rendered("{{ ds }}\n", jinja_environment_kwargs={"keep_trailing_newline": True}) == (
        "2026-01-31\n"
    )
    assert rendered("{{ ds }}\n") == "2026-01-31"
    assert rendered("{{ twice(2) }}", user_defined_macros={"twice": lambda n: 2 * n}) == "4"
    assert rendered("{{ 'a' | up }}", user_defined_filters={"up": str.upper}) == "A"
    assert rendered("{% do [].copy() %}x") == "x"


def test_native_objects_on_demand() -> None:
    assert rendered("{{ [1, 2] }}", render_template_as_native_obj=True) == [1, 2]
    assert rendered("{{ [1, 2] }}") == "[1, 2]"


def test_s58_xcom_in_templates() -> None:
    supervisor = FakeSupervisor()
    supervisor.xcoms["foo", "table_name"] = raw("t1")
    text = "SELECT * FROM {{ task_instance.xcom_pull(task_ids='foo', key='table_name') }}"
    assert rendered(text, supervisor) == "SELECT * FROM t1"


def test_s63_variables_and_connections_in_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = FakeSupervisor()
    supervisor.variables.update(name="v", conf='{"k": [1, 2]}')
    supervisor.connections["db"] = ConnectionRecord("db", host="h", extra='{"x": 1}')
    monkeypatch.setenv("ROOST_VAR_FROM_ENV", "e")
    assert rendered("{{ var.value.name }}", supervisor) == "v"
    assert rendered("{{ var.json.conf.k[1] }}", supervisor) == "2"
    assert rendered("{{ var.value.get('absent', 'd') }}", supervisor) == "d"
    assert rendered("{{ var.value.from_env }}", supervisor) == "e"
    assert rendered("{{ conn.db.host }} {{ conn.db.extra_dejson.x }}", supervisor) == "h 1"
    assert rendered("{{ conn.get('absent') }}", supervisor) == "None"


def test_params_come_from_dag_task_and_conf() -> None:
    dag = a_dag(params={"a": 1, "b": Param(2, "why"), "c": 3})
    show = Show(task_id="t", value="{{ params }}", params={"b": 20}, dag=dag)
    _, values = run(show, conf=raw({"c": 30, "d": 40}))
    assert values["return_value"] == "{'a': 1, 'b': 20, 'c': 30, 'd': 40}"
    assert rendered("{{ dag_run.conf['x'] }} {{ conf.x }}", conf={"x": "y"}) == "y y"


def failure(text: str) -> str:
    outcome, _ = run(Show(task_id="t", value=text, dag=a_dag()))
    assert outcome.kind == "failed"
    return outcome.error or ""


def test_an_undefined_name_fails_and_names_field_and_name() -> None:
    error = failure("{{ dss }}")
    assert "task 't': template of 'value' failed: UndefinedError: 'dss' is undefined" in error


def test_a_syntax_error_fails_the_task_not_the_worker() -> None:
    dag = a_dag()
    Show(task_id="t", value="{{ ds", dag=dag)
    prewarm(dag)
    assert "TemplateSyntaxError" in failure("{{ ds")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ti.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ macros.ds_add.__globals__ }}",
        "{{ params.update({'x': 1}) }}",
    ],
)
def test_s68_the_sandbox_refuses(text: str) -> None:
    assert "SecurityError" in failure(text)


def test_s68_template_files_beside_the_dag_file(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("echo {{ ds }}")
    (tmp_path / "part.txt").write_text("part {{ ds }}")
    dag = a_dag()
    dag.fileloc = str(tmp_path / "file.py")
    assert run(BashOperator(task_id="a", bash_command="run.sh", dag=dag))[1] == {
        "return_value": "2026-01-31"
    }
    show = Show(task_id="b", value="{% include 'part.txt' %}", dag=dag)
    assert run(show)[1] == {"return_value": "part 2026-01-31"}


def test_a_command_that_only_looks_like_a_template_file_stays_one(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("echo '{{ not rendered }}'")
    script.chmod(0o755)
    dag = a_dag()
    dag.fileloc = "/nowhere/file.py"
    assert run(BashOperator(task_id="a", bash_command=f"bash {script}", dag=dag))[1] == {
        "return_value": "{{ not rendered }}"
    }


def test_the_same_task_object_can_run_again() -> None:
    show = Show(task_id="t", value="{{ ds }}", dag=a_dag())
    day = 86_400_000_000
    first, second = run(show)[1], run(show, logical_date=day, interval_start=day)[1]
    assert first != second
    assert show.value == "{{ ds }}"


def test_a_run_without_logical_date_has_no_ds() -> None:
    outcome, _ = run(Show(task_id="t", value="{{ ds }}", dag=a_dag()), logical_date=None)
    assert "'ds' is undefined" in (outcome.error or "")


def test_start_date_types_do_not_matter_here() -> None:
    assert DAG("x", start_date=datetime(2026, 1, 1, tzinfo=UTC)).folder.endswith("dag")
