"""Templates at their edges: errors, the sandbox, limits, earlier runs, the seed's own examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roost.dag import macros
from roost.dag.context import CONTEXT_KEYS
from roost.dag.past import PAST_KEYS
from roost.operators import BashOperator, PythonOperator
from roost.support.task_requests import PreviousRun, RunRecord
from tests.dag.case import DAY, LOGICAL, FakeSupervisor, a_dag, probe, run


class MyDataReader:
    """The seed's example."""

    template_fields = ["path"]  # noqa: RUF012 - as the seed has it

    def __init__(self, my_path: str) -> None:
        self.path = my_path


class MyDataTransformer:
    """The seed's example of a deeper one."""

    template_fields = ["reader"]  # noqa: RUF012 - as the seed has it

    def __init__(self, my_reader: MyDataReader) -> None:
        self.reader = my_reader


def transform_data(data: Any) -> str:
    reader = data.reader if isinstance(data, MyDataTransformer) else data
    return str(reader.path)


@pytest.mark.parametrize(
    "wrap", [lambda reader: reader, MyDataTransformer], ids=["reader", "transformer"]
)
def test_s66_the_examples_of_the_seed(wrap: Any) -> None:
    """S66: an object in op_args is rendered where it has template_fields, and one inside it."""
    transform = PythonOperator(
        task_id="transform_data",
        python_callable=transform_data,
        op_args=[wrap(MyDataReader("/tmp/{{ ds }}/my_file"))],  # noqa: S108 - as the seed has it
        dag=a_dag(),
    )
    assert run(transform)[1] == {"return_value": "/tmp/2026-01-31/my_file"}  # noqa: S108


def failure(text: str, folder: Path | None = None, **of_dag: Any) -> str:
    """The error of a task whose command is this template."""
    dag = a_dag(**of_dag)
    dag.fileloc = str((folder or Path("/nowhere")) / "file.py")
    outcome, _ = run(BashOperator(task_id="t", bash_command=text, dag=dag))
    assert outcome.kind == "failed"
    return outcome.error or ""


def test_s64_an_error_is_one_line_with_its_place(tmp_path: Path) -> None:
    """S64: it names the task, the field, the line, and the text or the file."""
    head = "task 't': template of 'bash_command' failed: "
    assert failure("a\n{{ dss }}") == (
        f"{head}UndefinedError: 'dss' is undefined (line 2 of 'a\\n{{{{ dss }}}}')"
    )
    assert failure("a\nb\n{{ ds ").startswith(f"{head}TemplateSyntaxError: ")
    assert failure("a\nb\n{{ ds ").endswith("(line 3 of 'a\\nb\\n{{ ds ')")
    (tmp_path / "run.sh").write_text("a\n{{ 1 / 0 }}\n")
    assert failure("run.sh", tmp_path) == (
        f"{head}ZeroDivisionError: division by zero (line 2 of run.sh)"
    )


def test_an_error_inside_a_macro_shows_the_macros_lines() -> None:
    """S68: code of the user's own is to be found by its traceback."""

    def broken() -> None:
        raise ValueError("from the macro")

    error = failure("{{ broken() }}", user_defined_macros={"broken": broken})
    assert "template of 'bash_command' failed: ValueError: from the macro" in error
    assert 'raise ValueError("from the macro")' in error


@pytest.mark.parametrize(
    "text",
    [
        "{{ macros.uuid.os.getcwd() }}",
        "{{ macros.json.codecs.open('/etc/passwd') }}",
        "{{ macros.random._os }}",
        "{{ macros.datetime.__subclasses__() }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ dag.__init__.__globals__ }}",
    ],
)
def test_s68_the_sandbox_leads_to_no_module(text: str) -> None:
    """S68: the modules in ``macros`` are no way to those that they import."""
    error = failure(text)
    assert "SecurityError" in error or "UndefinedError" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 1000000000 }}",
        "{{ 1000000000 * [1] }}",
        "{{ 9 ** 99999999 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_s64_a_template_that_yields_too_much_is_refused(text: str, native: bool) -> None:
    """S64: with one line, before the memory is full."""
    error = failure(text, render_template_as_native_obj=native)
    assert "it yields more than 16 MiB" in error
    assert "\n" not in error


def test_s64_random_is_a_function_and_a_module() -> None:
    assert 0 <= macros.random() < 1
    assert macros.random.randint(3, 3) == 3
    with pytest.raises(AttributeError):
        getattr(macros.random, "_random")  # noqa: B009 - an attribute that is none


# ---------------------------------------------------------------------- earlier runs


def supervisor() -> FakeSupervisor:
    """One that knows an earlier run."""
    made = FakeSupervisor()
    made.previous = [
        RunRecord(
            "r", "success", LOGICAL - DAY, interval_start=LOGICAL - DAY, interval_end=LOGICAL,
            start_date=LOGICAL + 1_000_000, end_date=LOGICAL + 2_000_000,
        )
    ]  # fmt: skip
    return made


def test_s64_earlier_runs_in_templates() -> None:
    """S64: asked for once, and only when a template names them."""
    asked = supervisor()
    text = (
        "{{ prev_data_interval_start_success | ds }} {{ prev_data_interval_end_success | ds }} "
        "{{ prev_start_date_success.second }} {{ prev_end_date_success.second }} "
        "{{ prev_execution_date_success | ds }} {{ prev_ds }} {{ prev_ds_nodash }}"
    )
    task = BashOperator(task_id="t", bash_command=f"echo {text}", dag=a_dag(schedule="@daily"))
    assert run(task, asked)[1] == {
        "return_value": "2026-01-30 2026-01-31 1 2 2026-01-30 2026-01-30 20260130"
    }
    assert asked.asked.count(PreviousRun()) == 1
    other = supervisor()
    run(BashOperator(task_id="t", bash_command="echo {{ ds }}", dag=a_dag()), other)
    assert other.asked == []


def test_s64_earlier_runs_in_functions() -> None:
    """S64: by parameter, by ``**kwargs``, and from the context."""

    def by_name(prev_start_date_success: Any) -> Any:
        return prev_start_date_success.second

    def by_kwargs(**kwargs: Any) -> Any:
        return kwargs["prev_end_date_success"].second

    for function, expected in ((by_name, 1), (by_kwargs, 2)):
        task = PythonOperator(
            task_id="t", python_callable=function, templates_dict={"a": "b"}, dag=a_dag()
        )
        assert run(task, supervisor())[1] == {"return_value": expected}
    task_ = probe("t", lambda context: context["prev_start_date_success"].second, dag=a_dag())
    assert run(task_, supervisor())[1] == {"return_value": 1}


def test_s64_the_first_run_has_none_before() -> None:
    """S64: None, where there was no success."""
    task = BashOperator(task_id="t", bash_command="echo {{ prev_start_date_success }}", dag=a_dag())
    assert run(task)[1] == {"return_value": "None"}


def test_every_key_of_the_past_is_a_context_key() -> None:
    assert PAST_KEYS < CONTEXT_KEYS
