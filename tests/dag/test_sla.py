"""What sla_miss_callback is called with, and what the mail says (S102, S103)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from roost.dag import DAG
from roost.dag.callbacks import run_callback
from roost.dag.serialize import serialize_dag
from roost.dag.sla import BlockingTask, SlaMiss
from roost.exceptions import DagError
from roost.operators import EmptyOperator
from roost.support.clock import to_us
from roost.support.wire import CallbackSpec, Outcome
from tests.dag.case import FakeSupervisor, a_dag, spec_for
from tests.support.mail_server import mail_server

DATE = datetime(2026, 1, 31, tzinfo=UTC)
DETAIL = {
    "missed": [["a", to_us(DATE), to_us(DATE) + 5], ["b", to_us(DATE), to_us(DATE) + 5]],
    "blocking": [
        ["a", -1, "running", 1, "scheduled__x", to_us(DATE)],
        ["b", 3, "deferred", 1, "scheduled__x", to_us(DATE)],
    ],
}


def notify(dag: DAG, name: str, supervisor: FakeSupervisor) -> Outcome:
    detail = msgspec.Raw(msgspec.json.encode(DETAIL))
    callback = CallbackSpec(kind="sla", name=name, reason="2 missed", detail=detail)
    task = dag.get_task("a")
    return run_callback(spec_for(task, task_id="", callback=callback), dag, supervisor)


def test_s103_five_arguments() -> None:
    """S103: callable(dag, task_list, blocking_task_list, slas, blocking_tis)."""
    seen: list[tuple[Any, ...]] = []

    def wrong(*arguments: object) -> None:
        raise ValueError("logged, not fatal")

    with a_dag(sla_miss_callback=[wrong, lambda *arguments: seen.append(arguments)]) as dag:
        EmptyOperator(task_id="a", sla=timedelta(hours=1))
        EmptyOperator(task_id="b", sla=60)
    assert notify(dag, "sla_miss", FakeSupervisor()).callback_errors == 1
    ((of, tasks, blocking, slas, blocking_tis),) = seen
    assert of is dag
    assert tasks == "a on 2026-01-31T00:00:00+00:00\nb on 2026-01-31T00:00:00+00:00"
    assert blocking == "a on 2026-01-31T00:00:00+00:00\nb[3] on 2026-01-31T00:00:00+00:00"
    assert slas[1] == SlaMiss("b", "d", DATE, DATE + timedelta(microseconds=5))
    assert slas[1].execution_date == DATE
    assert blocking_tis == [
        BlockingTask("a", "d", "scheduled__x", -1, "running", 1, DATE),
        BlockingTask("b", "d", "scheduled__x", 3, "deferred", 1, DATE),
    ]
    assert blocking_tis[0].execution_date == DATE


def test_s102_the_mail_lists_missed_and_blocking_tasks() -> None:
    """S102: to the addresses of the tasks that were missed, each once."""
    with a_dag(default_args={"email": "ann@example.org"}) as dag:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", email=["ann@example.org", "bob@example.org"])
        EmptyOperator(task_id="c", email="carl@example.org")
    supervisor = FakeSupervisor()
    with mail_server() as server:
        supervisor.smtp = server.smtp
        assert notify(dag, "email", supervisor).kind == "success"
    (mail,) = server.mails
    assert mail["To"] == "ann@example.org, bob@example.org"
    assert mail["Subject"] == "[Roost] SLA missed in DAG d: 2 tasks"
    body = mail.get_body(("html",))
    assert body is not None
    missed, _, blocking = body.get_content().partition("Blocking tasks")
    assert "a on 2026-01-31T00:00:00+00:00" in missed
    assert "b on 2026-01-31T00:00:00+00:00" in missed
    assert "a on 2026-01-31T00:00:00+00:00" in blocking


def test_s100_the_knob() -> None:
    """S100: a timedelta or seconds, also from default_args; serialized for the scheduler."""
    with a_dag(default_args={"sla": timedelta(hours=2)}) as dag:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", sla=None)
    assert [task.sla_us for task in serialize_dag(dag).tasks] == [7_200_000_000, None]
    with pytest.raises(DagError, match="task 'c': sla must be a timedelta or seconds"):
        EmptyOperator(task_id="c", sla="1h")  # type: ignore[arg-type]
