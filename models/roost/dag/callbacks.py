"""Callbacks in a task process: build what they see, call them, log what they raise (H23).

A callback never changes what a task or a run came to. Each exception is logged with its traceback
and counted; the callbacks after it still run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from roost.dag import runtime
from roost.dag.context import build_context
from roost.dag.interrupt import Interrupts
from roost.dag.notices import failure_mail
from roost.dag.sla import sla_arguments, sla_mail
from roost.exceptions import DagError, TaskFailed, TaskTerminated, TaskTimeout
from roost.support.clock import from_us, now_us
from roost.support.wire import CallbackSpec, Outcome, TaskSpec

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.operator import BaseOperator
    from roost.dag.runtime import Supervisor

__all__ = ["Callback", "Callbacks", "as_callbacks", "call_all", "run_callback"]

Callback: TypeAlias = Callable[[dict[str, Any]], Any]
Callbacks: TypeAlias = Callback | Sequence[Callback] | None

log = logging.getLogger("roost.task")


def as_callbacks(of: str, name: str, value: Any) -> list[Callable[..., Any]]:
    """One callable, several, or None, as a list.

    Raises:
        DagError: something else was given.
    """
    if value is None:
        return []
    found = list(value) if isinstance(value, list | tuple) else [value]
    for one in found:
        if not callable(one):
            raise DagError(f"{of}: {name} must be a function or a list of functions, not {one!r}")
    return found


def call_all(functions: Sequence[Callable[..., Any]], name: str, *arguments: Any) -> int:
    """Call them one after the other; gives how many raised. A time-out ends them all."""
    raised = 0
    for function in functions:
        shown = getattr(function, "__qualname__", None) or type(function).__qualname__
        try:
            function(*arguments)
        except (TaskTimeout, TaskTerminated):
            log.error("%s callback %s was stopped", name, shown)
            raise
        except (Exception, SystemExit):
            raised += 1
            log.exception("%s callback %s failed", name, shown)
    return raised


def run_callback(spec: TaskSpec, dag: DAG | None, supervisor: Supervisor) -> Outcome:
    """Run what ``spec.callback`` names instead of a task's body. Never raises.

    Args:
        spec: the dispatch, with the fields of the task instance that it is about.
        dag: from the loaded file; None: the file does not hold it any more.
        supervisor: answers requests.
    """
    outcome = Outcome(kind="success", started_at=now_us(), ended_at=0)
    began = time.monotonic_ns()
    try:
        outcome.callback_errors = _run(spec, dag, supervisor)
        if outcome.callback_errors:
            outcome.kind, outcome.error = "failed", "it raised; the log has the traceback"
    except BaseException as error:
        log.exception("%s callback failed", _named(spec).name)
        outcome.kind, outcome.error = "failed", f"{type(error).__name__}: {error}"
        outcome.callback_errors += 1
    outcome.run_us = (time.monotonic_ns() - began) // 1000
    outcome.ended_at = max(now_us(), outcome.started_at)
    return outcome


def _named(spec: TaskSpec) -> CallbackSpec:
    assert spec.callback is not None  # noqa: S101 - who calls has seen it
    return spec.callback


def _run(spec: TaskSpec, dag: DAG | None, supervisor: Supervisor) -> int:
    callback = _named(spec)
    if dag is None or (callback.kind == "task" and not dag.has_task(spec.task_id)):
        raise DagError(
            f"{spec.fileloc} does not hold what {callback.name} is about any more "
            f"(DAG {spec.dag_id!r}, task {spec.task_id!r})"
        )
    subject = dag.get_task(spec.task_id) if dag.has_task(spec.task_id) else _NoTask(dag)
    context = _context(subject, spec, callback)
    functions = _functions(subject, dag, callback)
    log.info("%s callback of %s: %s", callback.name, _about(spec, callback), callback.reason)
    limit = spec.execution_timeout_us
    with runtime.using(supervisor, context), Interrupts(subject, limit, limit, "callback_timeout"):
        return call_all(functions, callback.name, *_arguments(dag, callback, context))


def _about(spec: TaskSpec, callback: CallbackSpec) -> str:
    if callback.kind != "task":
        return f"run {spec.run_id} of DAG {spec.dag_id}"
    return f"task {spec.task_id}, try {spec.try_number}"


class _NoTask:
    """Stands for the task of a DAG without tasks, which has callbacks all the same."""

    task_id = ""
    template_ext = template_fields = ()
    inlets = outlets = ()

    def __init__(self, dag: DAG) -> None:
        self.dag = dag
        self.params: dict[str, Any] = {}

    def on_kill(self) -> None:
        """Nothing was started."""


def _context(
    subject: BaseOperator | _NoTask, spec: TaskSpec, callback: CallbackSpec
) -> dict[str, Any]:
    context = build_context(subject, spec)  # type: ignore[arg-type]
    ti = context["ti"]
    ti.end_date = None if callback.end_date is None else from_us(callback.end_date)
    if callback.kind == "task":
        ti.state = callback.state
    elif callback.task_id is not None:
        ti.state = "success" if callback.state == "success" else "failed"
    context["reason"] = callback.reason
    context["exception"] = None
    if callback.kind == "deadline":
        due_at: int = msgspec.json.decode(callback.detail)["due_at"]
        context["deadline"] = from_us(due_at)
        missed = subject.dag.deadlines[callback.position : callback.position + 1]
        name = f" {missed[0].name}" if missed and missed[0].name else ""
        context["reason"] = f"deadline{name} missed: the run is {callback.state}"
    if callback.error is not None:
        context["exception"] = TaskFailed(callback.reason or callback.error, callback.error)
    return context


def _arguments(dag: DAG, callback: CallbackSpec, context: dict[str, Any]) -> tuple[Any, ...]:
    """What the functions are called with; an SLA's have arguments of their own (S103)."""
    if callback.kind == "sla":
        return sla_arguments(dag, bytes(callback.detail))
    return (context,)


def _functions(
    subject: BaseOperator | _NoTask, dag: DAG, callback: CallbackSpec
) -> list[Callable[..., Any]]:
    if callback.name == "email":
        return [sla_mail if callback.kind == "sla" else failure_mail]
    owner: object = subject if callback.kind == "task" else dag
    if callback.kind == "deadline":
        owner = dag.deadlines[callback.position] if callback.position < len(dag.deadlines) else None
    found = getattr(owner, f"{callback.name}_callback", None)
    if not found:
        raise DagError(f"{owner!r} has no {callback.name}_callback any more")
    return as_callbacks(repr(owner), callback.name, found)
