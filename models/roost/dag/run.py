"""Run one dispatch of a task and say how it ended: the heart of a task process."""

from __future__ import annotations

import copy
import copyreg
import functools
import logging
import time
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from roost.dag import runtime, xcom_value
from roost.dag.callbacks import call_all, run_callback
from roost.dag.context import build_context
from roost.dag.deferral import TaskDeferred, make_defer_spec
from roost.dag.failure import text_of
from roost.dag.interrupt import Interrupts
from roost.dag.mapped import MappedOperator
from roost.dag.param import run_params
from roost.dag.policy import RetryPolicy
from roost.dag.registry import is_known
from roost.dag.template import Renderer, render_template_fields
from roost.dag.xcom_arg import RETURN_KEY
from roost.exceptions import (
    DagError,
    DeferralTimeout,
    FailTask,
    RoostException,
    SkipTask,
    TriggerFailed,
)
from roost.support import typedjson
from roost.support.clock import duration_us, from_us, now_us
from roost.support.storable import storable
from roost.support.wire import TRIGGER_TIMEOUT, DeferSpec, Outcome, TaskSpec, XComWrite

if TYPE_CHECKING:
    from roost.dag.loader import LoadedFile
    from roost.dag.operator import BaseOperator
    from roost.dag.runtime import Supervisor

__all__ = ["execute_task", "render_task", "run_task"]

_LONGEST_DELAY_US = 2**60
_NAME_CHARS = 250

log = logging.getLogger("roost.task")


def run_task(spec: TaskSpec, loaded: LoadedFile, supervisor: Supervisor) -> Outcome:
    """Run the task that ``spec`` names from a loaded DAG file. Never raises.

    Args:
        spec: the dispatch.
        loaded: the DAG file, in the version that was dispatched.
        supervisor: answers the task's requests.
    """
    dag = loaded.dags.get(spec.dag_id)
    if spec.callback is not None:
        return run_callback(spec, dag, supervisor)
    if dag is None or not dag.has_task(spec.task_id):
        now = now_us()
        error = (
            f"{spec.fileloc} holds no task {spec.task_id!r} of DAG {spec.dag_id!r}: it depends on "
            "something outside the file that has changed; make the DAG the same wherever it loads"
        )
        log.error(error)
        return Outcome(kind="failed", started_at=now, ended_at=now, error=error)
    return execute_task(dag.get_task(spec.task_id), spec, supervisor, known=loaded.triggers)


def execute_task(
    task: BaseOperator,
    spec: TaskSpec,
    supervisor: Supervisor,
    *,
    known: Collection[str] | None = None,
) -> Outcome:
    """Run ``task`` once, or the method its deferral comes back to. Never raises.

    The task object itself is not changed: a shallow copy of it is rendered and run.

    Args:
        task: from its DAG.
        spec: the dispatch.
        supervisor: answers the task's requests.
        known: trigger classes (``module:qualname``) that the DAG file knows; a deferral to
            another is refused. None: not checked.
    """
    outcome = Outcome(kind="success", started_at=now_us(), ended_at=0)
    began = time.monotonic_ns()
    try:
        _run(_copy(task), spec, supervisor, known, outcome)
    except BaseException as error:
        _settle(error, outcome)
        if outcome.kind == "failed" and task.retry_policy is not None:
            _apply(task.retry_policy, error, spec.try_number, outcome)
    outcome.run_us = (time.monotonic_ns() - began) // 1000
    outcome.ended_at = max(now_us(), outcome.started_at)
    return outcome


def render_task(task: BaseOperator, spec: TaskSpec, supervisor: Supervisor) -> dict[str, Any]:
    """The template fields of ``task`` as one dispatch would see them, by name; it is not run.

    Args:
        task: from its DAG; a copy of it is rendered.
        spec: the dispatch.
        supervisor: answers what templates ask.

    Raises:
        RoostException: a template or a param is wrong; one line.
    """
    context = build_context(task, spec)
    with runtime.using(supervisor, context):
        made = _instance(task, spec, context) if isinstance(task, MappedOperator) else _copy(task)
        render_template_fields(made, context)
    return {name: getattr(made, name) for name in made.template_fields}


# What a class may define to be copied in a way of its own.
_COPYING = (
    *("__new__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
    *("__getnewargs__", "__getnewargs_ex__"),
)


@functools.cache
def _copies_plainly(kind: type[BaseOperator]) -> bool:
    """Whether a ``copy.copy`` of an instance is a copy of its ``__dict__`` and nothing else."""
    return (
        all(getattr(kind, name, None) is getattr(object, name, None) for name in _COPYING)
        and not any(vars(base).get("__slots__") for base in kind.__mro__)
        and kind not in copyreg.dispatch_table
    )


def _copy(task: BaseOperator) -> BaseOperator:
    """``copy.copy(task)``, by a shorter way where there is one: each task process pays for it."""
    kind = type(task)
    if not _copies_plainly(kind):
        return copy.copy(task)
    made: BaseOperator = object.__new__(kind)
    made.__dict__.update(task.__dict__)
    return made


def _run(
    task: BaseOperator,
    spec: TaskSpec,
    supervisor: Supervisor,
    known: Collection[str] | None,
    outcome: Outcome,
) -> None:
    """Run the task's code and write into ``outcome`` what it left."""
    context = build_context(task, spec)
    limit = spec.execution_timeout_us
    left = None if limit is None else limit - spec.run_us
    deferred: TaskDeferred | None = None
    result: Any = None
    interrupts = Interrupts(task, left, limit)
    try:
        with runtime.using(supervisor, context), interrupts:
            if isinstance(task, MappedOperator):
                task = interrupts.task = _instance(task, spec, context)
            try:
                result = _call(task, spec, context, outcome)
            finally:
                outcome.map_name = _map_name(task, context)
    except TaskDeferred as error:
        deferred = error
    finally:
        # Set whether it ended as success or as skipped (branches, LatestOnly).
        outcome.skip = list(dict.fromkeys(context["ti"].skips))
    if deferred is None:
        outcome.xcoms = _returned(task, result)
        if task.outlets:
            extras = context["outlet_events"].extras()
            outcome.assets = {uri: msgspec.Raw(extra) for uri, extra in extras.items()}
    else:
        outcome.defer = _deferral(task, deferred, known)
        outcome.kind = "deferred"
        log.info("%s", _in_words(outcome.defer))


def _instance(task: MappedOperator, spec: TaskSpec, context: dict[str, Any]) -> BaseOperator:
    """The operator that one instance of a mapped task runs (H17)."""
    made = task.instance(spec.map_index, context)
    context["task"] = context["ti"].task = made
    context["params"] = run_params(made, context["conf"])
    return made


def _map_name(task: BaseOperator, context: dict[str, Any]) -> str | None:
    """What ``map_index_template`` calls this instance; its errors are not the task's."""
    if task.map_index_template is None or context["ti"].map_index < 0:
        return None
    try:
        text = str(Renderer(task, context).render(task.map_index_template))
    except Exception as error:
        log.warning("map_index_template failed: %s: %s", type(error).__name__, error)
        return None
    return storable(text)[:_NAME_CHARS]


def _call(task: BaseOperator, spec: TaskSpec, context: dict[str, Any], outcome: Outcome) -> Any:
    render_template_fields(task, context)
    if spec.next_method is None:
        if task.on_execute_callback:
            outcome.callback_errors = call_all(task.on_execute_callback, "on_execute", context)
        task.pre_execute(context)
        result = task.execute(context)
    else:
        result = _come_back(task, spec, context)
    task.post_execute(context, result)
    return result


def _come_back(task: BaseOperator, spec: TaskSpec, context: dict[str, Any]) -> Any:
    """Call the method that ``defer`` named, with the event (D3)."""
    if spec.trigger_error is not None:
        timed_out = spec.trigger_error.startswith(TRIGGER_TIMEOUT)
        raise (DeferralTimeout if timed_out else TriggerFailed)(spec.trigger_error)
    method = getattr(task, spec.next_method or "", None)
    if not callable(method):
        raise DagError(
            f"task {task.task_id!r} deferred to method {spec.next_method!r}, which "
            f"{type(task).__name__} does not have"
        )
    kwargs: Any = typedjson.decode(spec.next_kwargs) or {}
    log.info("resumed in %s()", spec.next_method)
    return method(context, **kwargs)


def _returned(task: BaseOperator, result: Any) -> list[XComWrite]:
    """The XComs of a return value (S55)."""
    if result is None or not task.do_xcom_push:
        return []
    values: dict[str, Any] = {}
    if task.multiple_outputs:
        if not isinstance(result, dict) or not all(isinstance(key, str) for key in result):
            raise RoostException(
                f"task {task.task_id!r} has multiple_outputs and must return a dict with str "
                f"keys, not {type(result).__name__}"
            )
        values.update(result)
    values[RETURN_KEY] = result
    return [xcom_value.encode(task.task_id, key, value) for key, value in values.items()]


def _in_words(spec: DeferSpec) -> str:
    """What a task's log says of its deferral; not the arguments, which may be secret."""
    until = f" until {from_us(spec.due_at).isoformat()}" if spec.due_at is not None else ""
    limit = ""
    if spec.timeout_us is not None:
        limit = f"; times out after {timedelta(microseconds=spec.timeout_us)}"
    back = f"back in {spec.next_method}()" if spec.next_method else "which ends the task"
    return f"deferred{until} on {spec.classpath}, {back}{limit}"


def _deferral(
    task: BaseOperator, deferred: TaskDeferred, known: Collection[str] | None
) -> DeferSpec:
    method = deferred.method_name
    if method is not None and not callable(getattr(task, method, None)):
        raise DagError(f"defer: {type(task).__name__} has no method {method!r} to come back to")
    spec = make_defer_spec(deferred)
    if known is not None and spec.lane == "poll" and not is_known(spec.source, known):
        raise DagError(
            f"trigger class {spec.source} was not known when the DAG file was parsed: import it "
            "at the top level of the file, not inside a function"
        )
    return spec


def _settle(error: BaseException, outcome: Outcome) -> None:
    """Turn what the task raised into its outcome."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return
    if isinstance(error, SkipTask):
        log.info("skipped: %s", error)
        outcome.kind = "skipped"
        return
    outcome.kind = "failed"
    outcome.skip = []
    outcome.retryable = not isinstance(error, FailTask)
    outcome.error = text_of(error)
    log.error("task failed%s%s", "\n" if "\n" in outcome.error else ": ", outcome.error)


def _apply(policy: RetryPolicy, error: BaseException, try_number: int, outcome: Outcome) -> None:
    """Let the author's policy say what follows; one that is broken is as if there were none."""
    try:
        decision = policy.checked(error, try_number)
    except Exception:
        log.exception("the retry policy failed; the task is retried as its retries allow")
        return
    if decision == "fail":
        outcome.retryable = False
    elif decision != "retry":
        outcome.retry_delay_us = min(duration_us(decision), _LONGEST_DELAY_US)
