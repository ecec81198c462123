"""What callbacks see and what becomes of what they raise, in a task process (H23)."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

import pytest

from roost.dag import DAG, BaseNotifier, task
from roost.dag.callbacks import run_callback
from roost.dag.loader import LoadedFile
from roost.dag.operator import BaseOperator
from roost.dag.run import run_task
from roost.dag.serialize import serialize_dag
from roost.exceptions import DagError, TaskFailed
from roost.operators import EmptyOperator, PythonOperator
from roost.support.wire import CallbackSpec, Outcome
from tests.dag.case import FakeSupervisor, a_dag, spec_for
from tests.support.mail_server import mail_server

END = 1_772_366_400_000_000


def called(
    task: BaseOperator,
    name: str = "on_failure",
    supervisor: FakeSupervisor | None = None,
    **fields: Any,
) -> Outcome:
    """Run a callback of ``task`` as a task process would."""
    values: dict[str, Any] = {"kind": "task", "state": "failed", "reason": "ValueError: boom"}
    values |= {"task_id": task.task_id, "ti_id": 1, "end_date": END, **fields}
    spec = spec_for(task, callback=CallbackSpec(name=name, **values), try_number=2)
    loaded = LoadedFile({task.dag_id: task.dag}, {}, object(), [], "")  # type: ignore[arg-type]
    return run_task(spec, loaded, supervisor or FakeSupervisor())


def test_h23_the_context_of_a_failure_callback() -> None:
    """H23: ti.state, the try, the reason, and an exception that carries the stored error."""
    seen: list[dict[str, Any]] = []
    with a_dag():
        task = EmptyOperator(task_id="a", on_failure_callback=seen.append)
    outcome = called(task, error="Traceback …\nValueError: boom")
    assert (outcome.kind, outcome.callback_errors) == ("success", 0)
    (context,) = seen
    ti, error = context["ti"], context["exception"]
    assert (ti.task_id, ti.state, ti.try_number) == ("a", "failed", 2)
    assert ti.end_date.isoformat() == "2026-03-01T12:00:00+00:00"
    assert context["ds"] == "2026-01-31"
    assert context["reason"] == "ValueError: boom"
    assert isinstance(error, TaskFailed)
    assert str(error) == "ValueError: boom"
    assert error.traceback == "Traceback …\nValueError: boom"


def test_h23_each_of_a_list_runs_and_what_they_raise_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H23: an exception is logged with its traceback, and the next one runs."""
    seen: list[str] = []

    def first(context: dict[str, Any]) -> None:
        raise ValueError("wobble")

    def second(context: dict[str, Any]) -> None:
        raise SystemExit(3)

    with a_dag():
        functions = [first, second, lambda context: seen.append(context["ti"].task_id)]
        task = EmptyOperator(task_id="a", on_failure_callback=functions)
    outcome = called(task)
    assert (outcome.kind, outcome.callback_errors) == ("failed", 2)
    assert seen == ["a"]
    assert "ValueError: wobble" in caplog.text
    assert "Traceback" in caplog.text


def test_h23_on_execute_runs_in_the_task_before_its_body_once() -> None:
    """H23: after the templates, before execute; not when a deferral comes back; never fatal."""
    order: list[str] = []

    class Body(BaseOperator):
        template_fields = ("word",)

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.word = "{{ ds }}"

        def execute(self, context: dict[str, Any]) -> None:
            order.append("execute")

        def come_back(self, context: dict[str, Any]) -> None:
            order.append("come back")

    def note(context: dict[str, Any]) -> None:
        order.append(f"on_execute {context['task'].word} {context['ti'].state}")
        raise ValueError("not fatal")

    with a_dag():
        task = Body(task_id="a", on_execute_callback=note)
    loaded = LoadedFile({"d": task.dag}, {}, object(), [], "")  # type: ignore[arg-type]
    outcome = run_task(spec_for(task), loaded, FakeSupervisor())
    assert (outcome.kind, outcome.callback_errors) == ("success", 1)
    run_task(spec_for(task, next_method="come_back"), loaded, FakeSupervisor())
    assert order == ["on_execute 2026-01-31 running", "execute", "come back"]


@pytest.mark.parametrize("name", ["on_success", "on_retry", "on_skipped"])
def test_h23_every_kind_is_found_by_its_name(name: str) -> None:
    """H23: default_args give callbacks too, and the task's own win."""
    seen: list[str] = []
    default: dict[str, Callable[..., Any]] = {
        f"{name}_callback": lambda context: seen.append("default")
    }
    with a_dag(default_args=default):
        one = EmptyOperator(task_id="a")
        own: dict[str, Any] = {f"{name}_callback": lambda context: seen.append("own")}
        two = EmptyOperator(task_id="b", **own)
    called(one, name)
    called(two, name)
    assert seen == ["default", "own"]


def test_h23_a_dag_callback_sees_the_run() -> None:
    """H23: with the reason, and the first task that failed as ti."""
    seen: list[dict[str, Any]] = []
    with a_dag(on_failure_callback=[seen.append]) as dag:
        task = EmptyOperator(task_id="a")
    assert called(task, kind="dag", reason="task_failure").kind == "success"
    (context,) = seen
    assert context["reason"] == "task_failure"
    assert context["dag_run"].run_id == "scheduled__2026-01-31"
    assert context["dag"] is dag
    assert (context["ti"].task_id, context["ti"].state) == ("a", "failed")


def test_h23_a_dag_without_tasks_calls_back() -> None:
    """H23: there is no task to show."""
    seen: list[dict[str, Any]] = []
    dag = DAG("empty", on_success_callback=seen.append)
    spec = spec_for(
        EmptyOperator(task_id="x", dag=a_dag()),
        dag_id="empty",
        task_id="",
        callback=CallbackSpec(kind="dag", name="on_success", state="success", reason="success"),
    )
    assert run_callback(spec, dag, FakeSupervisor()).kind == "success"
    assert seen[0]["dag"] is dag


def test_h23_what_the_file_holds_no_more_is_told() -> None:
    """H23: the callback was taken out of the file's outside: one line, no crash."""
    with a_dag():
        task = EmptyOperator(task_id="a")
    outcome = called(task)
    assert outcome.kind == "failed"
    assert outcome.error == "DagError: <EmptyOperator a> has no on_failure_callback any more"
    spec = spec_for(task, callback=CallbackSpec(kind="task", name="on_failure"))
    outcome = run_callback(spec, None, FakeSupervisor())
    assert "does not hold what on_failure is about" in (outcome.error or "")


def test_h23_a_callback_has_a_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    """H23: it is stopped, and with it what comes after it."""
    seen: list[Any] = []
    with a_dag():
        task = EmptyOperator(
            task_id="a", on_failure_callback=[lambda _: signal.pause(), seen.append]
        )
    spec = spec_for(
        task,
        callback=CallbackSpec(kind="task", name="on_failure", task_id="a"),
        execution_timeout_us=50_000,
    )
    outcome = run_callback(spec, task.dag, FakeSupervisor())
    assert (outcome.kind, outcome.callback_errors) == ("failed", 1)
    assert "longer than its callback_timeout (0.05 s)" in (outcome.error or "")
    assert seen == []


def test_h23_an_instance_of_a_mapped_task_calls_back() -> None:
    """H23, H17: with its map_index; on_execute runs in each instance."""
    seen: list[tuple[str, int, int]] = []

    def note(context: dict[str, Any]) -> None:
        ti = context["ti"]
        seen.append((ti.state, ti.map_index, ti.try_number))

    with a_dag() as dag:

        @task(on_failure_callback=note, on_execute_callback=[note])
        def square(x: int) -> int:
            return x * x

        square.expand(x=[1, 2])
    (mapped,) = dag.tasks
    assert serialize_dag(mapped.dag).tasks[0].callbacks == ["on_execute", "on_failure"]
    assert called(mapped).kind == "success"
    loaded = LoadedFile({"d": mapped.dag}, {}, object(), [], "")  # type: ignore[arg-type]
    assert run_task(spec_for(mapped, map_index=0), loaded, FakeSupervisor()).kind == "success"
    assert seen == [("failed", -1, 2), ("running", 0, 1)]


class Chat(BaseNotifier):
    """Keeps what it would send."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, text: str) -> None:
        self.text = text

    def notify(self, context: dict[str, Any]) -> None:
        """Send."""
        self.sent.append(f"{self.text}: {context['reason']}")


def test_h23_a_notifier_renders_its_fields_in_a_copy() -> None:
    """H23: notifiers are callbacks with templated fields."""
    Chat.sent.clear()
    chat = Chat("{{ ti.task_id }} of {{ ds }}")
    with a_dag():
        task = EmptyOperator(task_id="a", on_failure_callback=chat)
    assert called(task).kind == "success"
    assert Chat.sent == ["a of 2026-01-31: ValueError: boom"]
    assert chat.text == "{{ ti.task_id }} of {{ ds }}"
    with pytest.raises(NotImplementedError, match="BaseNotifier has no notify"):
        BaseNotifier().notify({})


def test_h23_serialized_as_names_only() -> None:
    """H23, H27: the scheduler learns which there are; an empty task with one needs a process."""
    with a_dag(on_failure_callback=print, sla_miss_callback=[print]) as dag:
        EmptyOperator(task_id="a", on_retry_callback=print, email="x@example.org, y@example.org")
        EmptyOperator(task_id="b", email_on_retry=False)
    data = serialize_dag(dag)
    assert data.callbacks == ["on_failure", "sla_miss"]
    one, two = data.tasks
    assert (one.callbacks, one.email, one.empty) == (
        ["on_retry"],
        ["x@example.org", "y@example.org"],
        False,
    )
    assert (two.callbacks, two.email_on_retry, two.empty) == ([], False, True)


def test_h23_what_cannot_be_called_is_refused_at_parse() -> None:
    """H23: one line that names the task and the argument."""
    with pytest.raises(DagError, match=r"task 'a': on_retry_callback must be a function or a list"):
        EmptyOperator(task_id="a", on_retry_callback="print")  # type: ignore[arg-type]
    with pytest.raises(DagError, match=r"DAG 'x': on_failure_callback must be"):
        DAG("x", on_failure_callback=[1])  # type: ignore[list-item]
    with pytest.raises(DagError, match=r"task 'a': email must be an address"):
        EmptyOperator(task_id="a", email=3)  # type: ignore[arg-type]


def test_h23_the_mail_of_a_failure() -> None:
    """H23: it says which task, which try and why, with the traceback, escaped."""
    with a_dag():
        task = PythonOperator(
            task_id="a", python_callable=print, email=["ann@example.org", "bob@example.org"]
        )
    supervisor = FakeSupervisor()
    with mail_server() as server:
        supervisor.smtp = server.smtp
        called(task, "email", supervisor, error="Traceback\nValueError: <boom>")
        called(task, "email", supervisor, state="up_for_retry")
    failure, retry = server.mails
    assert failure["To"] == "ann@example.org, bob@example.org"
    assert failure["Subject"] == "[Roost] d.a failed: scheduled__2026-01-31, try 2"
    body = failure.get_body(("html",))
    assert body is not None
    text = body.get_content()
    assert "<td>2 of 3</td>" in text
    assert "ValueError: &lt;boom&gt;" in text
    assert "will be retried" in retry["Subject"]


def test_h23_a_mail_that_is_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """H23: a mail server that is away fails no task; the log names the remedy."""
    caplog.set_level(logging.INFO)
    with a_dag():
        task = EmptyOperator(task_id="a", email="ann@example.org")
    supervisor = FakeSupervisor()
    with mail_server() as server:
        supervisor.smtp = server.smtp
    outcome = called(task, "email", supervisor)
    assert outcome.callback_errors == 1
    assert "check smtp.host" in caplog.text
