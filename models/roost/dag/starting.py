"""Tasks that start in their trigger: no worker is taken before there is an event (D12)."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from roost.dag import knobs
from roost.dag.model import SerializedStart
from roost.dag.trigger import BaseTrigger, classpath_of, source_of, trigger_classes
from roost.dag.xcom_arg import find_arguments
from roost.exceptions import DagError, ValueNotStorable
from roost.support import typedjson
from roost.support.clock import duration_us
from roost.support.wire import OnTimeout

if TYPE_CHECKING:
    from roost.dag.definition import DAG
    from roost.dag.operator import BaseOperator

__all__ = ["StartTriggerArgs", "import_start_triggers", "own_copy", "serialize_start"]


@dataclass
class StartTriggerArgs:
    """The trigger that a task with ``start_from_trigger`` starts in.

    Args:
        trigger_cls: the trigger class, or its name: ``package.module.Class``.
        next_method: method of the operator that receives the event; None where the trigger ends
            the task (D11).
        trigger_kwargs: arguments of the class; typed JSON. Texts in them are templates, rendered
            where the trigger runs.
        next_kwargs: more arguments for that method; typed JSON.
        timeout: longest wait, a timedelta or seconds, from the start of the trigger (D6).
        on_timeout: what happens then: ``retry`` while tries are left, ``fail`` for good, ``skip``.
    """

    trigger_cls: str | type[BaseTrigger]
    next_method: str | None = None
    trigger_kwargs: Mapping[str, Any] | None = None
    next_kwargs: Mapping[str, Any] | None = None
    timeout: timedelta | float | None = None
    on_timeout: OnTimeout = "retry"


def own_copy(args: object) -> Any:
    """What a task has of its class: its ``__init__`` may change it, and not for the others."""
    return copy.copy(args) if isinstance(args, StartTriggerArgs) else args


def import_start_triggers(dags: Iterable[DAG]) -> None:
    """Import the trigger classes that tasks name by text, so that the file knows them.

    Raises:
        DagError: there is no such class.
        Exception: whatever its module raises.
    """
    for dag in dags:
        for task in dag.tasks:
            if task.start_from_trigger and isinstance(task.start_trigger_args, StartTriggerArgs):
                _class_of(f"task {task.task_id!r}", task.start_trigger_args.trigger_cls)


def serialize_start(task: BaseOperator) -> SerializedStart | None:
    """How ``task`` starts in its trigger; None: a worker runs it.

    Raises:
        DagError: the arguments are wrong; the message names them.
    """
    if not task.start_from_trigger:
        return None
    of = f"task {task.task_id!r}"
    args = task.start_trigger_args
    if not isinstance(args, StartTriggerArgs):
        where = "on its class, since it is mapped, " if task.is_mapped else ""
        raise DagError(
            f"{of} has start_from_trigger and needs {where}start_trigger_args=StartTriggerArgs(…), "
            f"not {args!r}"
        )
    kind = _class_of(of, args.trigger_cls)
    source = source_of(kind)
    if "<locals>" in source:
        raise DagError(f"{of}: trigger class {kind.__qualname__} must be at the top of its module")
    _check_method(of, task, args.next_method)
    if args.on_timeout not in get_args(OnTimeout):
        raise DagError(f"{of}: on_timeout must be 'retry', 'fail' or 'skip'")
    named = args.trigger_cls if isinstance(args.trigger_cls, str) else classpath_of(kind)
    kwargs = _plain(of, "trigger_kwargs", args.trigger_kwargs)
    if not task.is_mapped:  # an instance of a mapped task may have arguments of its own
        _check_signature(of, kind, args.trigger_kwargs or {})
    timeout = knobs.maybe_duration(of, "timeout", args.timeout)
    return SerializedStart(
        classpath=named,
        source=source,
        kwargs=kwargs,
        next_method=None if kind.end_from_trigger else args.next_method,
        next_kwargs=_plain(of, "next_kwargs", args.next_kwargs),
        timeout_us=None if timeout is None else duration_us(timeout),
        on_timeout=args.on_timeout,
    )


def _class_of(of: str, named: str | type[BaseTrigger]) -> type[BaseTrigger]:
    if isinstance(named, type) and issubclass(named, BaseTrigger):
        return named
    if not isinstance(named, str):
        raise DagError(f"{of}: trigger_cls must be a trigger class or its name, not {named!r}")
    dotted = named.replace(":", ".")
    module, _, last = dotted.rpartition(".")
    try:
        # First those that exist: the module may be a DAG file that is being executed.
        same = [kind for kind in trigger_classes() if _dotted(kind) == dotted]
        if found := next((kind for kind in same if _stands(kind)), None):
            return found
        found = getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise DagError(
            f"{of}: there is no trigger class {named!r}: {error}; write package.module.Class"
        ) from None
    if not isinstance(found, type) or not issubclass(found, BaseTrigger):
        raise DagError(f"{of}: {named!r} is no trigger class: it must subclass BaseTrigger")
    return found


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _stands(kind: type) -> bool:
    """Whether its module has this very class, and not that of a later version of the file."""
    target: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        target = getattr(target, part, None)
    return target is kind


def _check_method(of: str, task: BaseOperator, name: str | None) -> None:
    operator = getattr(task, "operator_class", type(task))
    if name is not None and not (isinstance(name, str) and callable(getattr(operator, name, None))):
        raise DagError(f"{of}: {operator.__name__} has no method {name!r} to come back to")


def _check_signature(of: str, kind: type[BaseTrigger], kwargs: Mapping[str, Any]) -> None:
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        raise DagError(f"{of}: trigger_kwargs do not fit {kind.__qualname__}: {error}") from None


def _plain(of: str, name: str, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Typed JSON as plain objects, to stand inside the serialized DAG."""
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise DagError(f"{of}: {name} must be a dict, not {kwargs!r}")
    for argument in find_arguments(dict(kwargs or {})):
        raise DagError(
            f"{of}: {name} cannot hold {argument!r}: no worker resolves it; write a template: "
            "{{ ti.xcom_pull(task_ids='…') }}"
        )
    try:
        found: dict[str, Any] = msgspec.json.decode(typedjson.encode(dict(kwargs or {}), name=name))
    except ValueNotStorable as error:
        raise DagError(f"{of}: {error}") from None
    return found
