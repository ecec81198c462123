"""What a trigger is made of in which its task starts: templates, rendered here and nowhere else.

No worker has run anything of such a task (D12). The scheduler has kept the arguments of the
trigger as they stand in the DAG file; the runner loads the file, builds the context that a task
process would have, and renders them in Jinja's sandbox. What comes of it stays in this process.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from roost.dag.context import build_context
from roost.dag.deferral import TaskDeferred, make_defer_spec
from roost.dag.definition import DAG
from roost.dag.mapped import MappedOperator
from roost.dag.param import run_params
from roost.dag.starting import StartTriggerArgs
from roost.dag.template import Renderer, is_template
from roost.dag.trigger import BaseTrigger
from roost.exceptions import RoostException, ValueNotStorable
from roost.support import typedjson
from roost.support.trigger_wire import StartSpec
from roost.support.wire import DeferSpec, TaskSpec

__all__ = ["Renderers", "needs_dag", "render_start", "row_of"]

_RENDER_S = 60.0
_THREADS = 4
_NO_METHOD = "execute_complete"  # any name: the row has the real one


def needs_dag(start: StartSpec) -> bool:
    """Whether the DAG must be loaded to tell the arguments: templates, or a mapped task."""
    mapped = start.task is not None and start.task.map_index >= 0
    return mapped or _holds_template(_read(start))


def render_start(start: StartSpec, dag: DAG | None) -> dict[str, Any]:
    """The arguments of the trigger. May ask the supervisor, and must not do so on the loop.

    Args:
        start: with its task.
        dag: where :func:`needs_dag` says so.

    Raises:
        RoostException: a template, a param or the operator of a mapped instance is wrong.
    """
    kwargs, spec = _read(start), start.task
    if dag is None or spec is None:
        return kwargs
    if not dag.has_task(spec.task_id):
        raise RoostException(f"{spec.fileloc} holds no task {spec.task_id!r} of {spec.dag_id!r}")
    try:
        return _render(kwargs, spec, dag)
    except RoostException as error:
        raise RoostException(f"the trigger_kwargs cannot be rendered: {error}") from None


def _render(kwargs: dict[str, Any], spec: TaskSpec, dag: DAG) -> dict[str, Any]:
    task = dag.get_task(spec.task_id)
    context = build_context(task, spec)
    if isinstance(task, MappedOperator):
        task = task.instance(spec.map_index, context)
        context["task"] = context["ti"].task = task
        context["params"] = run_params(task, context["conf"])
        own = task.start_trigger_args
        if isinstance(own, StartTriggerArgs) and own.trigger_kwargs is not None:
            kwargs = dict(own.trigger_kwargs)
    plain = copy.copy(task)
    plain.template_ext = ()  # the path of a script that is awaited is no template
    renderer = Renderer(plain, context)
    return {name: renderer.field(name, value) for name, value in kwargs.items()}


def _read(start: StartSpec) -> dict[str, Any]:
    try:
        kwargs = typedjson.decode(start.kwargs)
    except ValueNotStorable as error:
        raise RoostException(f"the trigger_kwargs cannot be read: {error}") from None
    if not isinstance(kwargs, dict):
        raise RoostException("the trigger_kwargs are not a dict")
    return kwargs


def _holds_template(value: object) -> bool:
    if isinstance(value, str):
        return is_template(value)
    if isinstance(value, dict):
        return any(map(_holds_template, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_template, value))


def row_of(trigger: BaseTrigger) -> DeferSpec | None:
    """What is stored of a trigger that waits as a row; None: it has to be run.

    Its ``next_method`` is None where the trigger ends the task. What others than our own classes
    were made of is left out: nobody makes them again.
    """
    if trigger.due_at is None and trigger.external_key is None:
        return None
    spec = make_defer_spec(TaskDeferred(trigger=trigger, method_name=_NO_METHOD))
    if not spec.source.startswith("roost.triggers."):
        spec.kwargs = type(spec.kwargs)(b"{}")
    return spec


class Renderers:
    """Threads in which arguments are rendered: templates ask for Variables, and wait for them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "render")

    async def run(self, render: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Render in a thread that counts as the current trigger's.

        Raises:
            TimeoutError: it took over a minute.
        """
        loop, threads = asyncio.get_running_loop(), self._threads
        context = contextvars.copy_context()
        rendering = loop.run_in_executor(threads, context.run, render)
        done, _ = await asyncio.wait((rendering,), timeout=_RENDER_S)
        if not done:
            if self._threads is threads:  # it may hang for ever: others get new ones
                self._threads = ThreadPoolExecutor(_THREADS, "render")
            raise TimeoutError(f"rendering the trigger_kwargs took over {_RENDER_S:g} s")
        return rendering.result()
