"""Leaving a task to wait: the exception that defer() raises and what is stored of it (D1, D2)."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Mapping
from datetime import UTC, timedelta
from types import FunctionType
from typing import Any, get_args

import msgspec

from roost.dag.trigger import BaseTrigger, classpath_of, source_of, trigger_classes
from roost.exceptions import DagError
from roost.support import typedjson
from roost.support.clock import duration_us, from_us, to_us
from roost.support.wire import DeferSpec, OnTimeout

__all__ = ["TaskDeferred", "make_defer_spec", "timer_payload"]

_ON_TIMEOUT = get_args(OnTimeout)


class TaskDeferred(BaseException):
    """Raised by ``BaseOperator.defer``; not an Exception, so a bare handler lets it pass (D1).

    Raises:
        DagError: an argument of ``defer`` has the wrong type.
    """

    def __init__(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str | None,
        kwargs: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
        on_timeout: OnTimeout = "retry",
    ) -> None:
        super().__init__()
        if not isinstance(trigger, BaseTrigger):
            raise DagError(f"defer: trigger must be an instance of BaseTrigger, not {trigger!r}")
        if method_name is not None and not (
            isinstance(method_name, str) and method_name.isidentifier()
        ):
            raise DagError(
                f"defer: method_name must name a method, or be None where the trigger ends the "
                f"task, not {method_name!r}"
            )
        if isinstance(timeout, int | float) and not isinstance(timeout, bool):
            timeout = timedelta(seconds=timeout)
        if timeout is not None and not isinstance(timeout, timedelta):
            raise DagError(f"defer: timeout must be a timedelta or seconds, not {timeout!r}")
        if on_timeout not in _ON_TIMEOUT:
            raise DagError(
                f"defer: on_timeout must be 'retry', 'fail' or 'skip', not {on_timeout!r}"
            )
        self.trigger = trigger
        self.method_name = method_name
        self.kwargs = dict(kwargs or {})
        self.timeout = timeout
        self.on_timeout: OnTimeout = on_timeout

    def __str__(self) -> str:
        back = f"back in {self.method_name}()" if self.method_name else "which ends the task"
        return f"deferred to {self.trigger!r}, {back}"


def make_defer_spec(deferred: TaskDeferred) -> DeferSpec:
    """What the database keeps of a deferral.

    Raises:
        DagError: the trigger cannot be made again from what its ``serialize()`` returned, or
            its class could not be found again by another process.
        ValueNotStorable: kwargs hold something that is not typed JSON.
    """
    trigger = deferred.trigger
    classpath, kwargs = _serialized(trigger)
    kind = _class_named(classpath, type(trigger))
    source = source_of(kind)
    if "<locals>" in source:
        raise DagError(
            f"trigger class {kind.__qualname__} is defined inside a function, where no other "
            "process can find it: move it to the top level of its file"
        )
    _check_fit(kind, kwargs)
    due = trigger.due_at
    if due is not None and due.tzinfo is None:
        raise DagError(f"{kind.__qualname__}.due_at needs a time zone, got {due!r}")
    key = trigger.external_key
    return DeferSpec(
        lane="timer" if due is not None else "external" if key is not None else "poll",
        classpath=classpath,
        source=source,
        kwargs=msgspec.Raw(typedjson.encode(kwargs, name="trigger kwargs")),
        next_method=None if trigger.end_from_trigger else deferred.method_name,
        next_kwargs=msgspec.Raw(typedjson.encode(deferred.kwargs, name="kwargs")),
        due_at=None if due is None else to_us(due),
        key=key,
        timeout_us=None if deferred.timeout is None else duration_us(deferred.timeout),
        on_timeout=deferred.on_timeout,
    )


def timer_payload(due_at: int) -> bytes:
    """Typed JSON of the event of a timer that was due at ``due_at`` (us): the moment in UTC."""
    return typedjson.encode(from_us(due_at).astimezone(UTC))


def _serialized(trigger: BaseTrigger) -> tuple[str, dict[str, Any]]:
    result: Any = trigger.serialize()
    if (
        not isinstance(result, tuple)
        or len(result) != 2
        or not isinstance(result[0], str)
        or not isinstance(result[1], dict)
    ):
        raise DagError(
            f"{type(trigger).__qualname__}.serialize() must return (class path, kwargs dict), "
            f"not {result!r}"
        )
    return result


def _check_fit(kind: type[BaseTrigger], kwargs: dict[str, Any]) -> None:
    if _fits_plainly(kind, kwargs):
        return
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        raise DagError(
            f"{kind.__qualname__}.serialize() returned kwargs that do not fit its __init__: {error}"
        ) from None


def _fits_plainly(kind: type[BaseTrigger], kwargs: dict[str, Any]) -> bool:
    """Whether the names fit a plain ``__init__``; False where that takes a closer look.

    A signature costs a process as young as a task's a quarter of a millisecond.
    """
    init = kind.__init__
    if (
        not isinstance(init, FunctionType)
        or hasattr(init, "__wrapped__")
        or hasattr(kind, "__signature__")
        or kind.__new__ is not object.__new__
        or type(kind) is not ABCMeta
    ):
        return False
    code = init.__code__
    if code.co_posonlyargcount or not code.co_argcount:
        return False
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    optional = code.co_varnames[code.co_argcount - len(init.__defaults__ or ()) : code.co_argcount]
    given = kwargs.keys() | set(optional) | (init.__kwdefaults__ or {}).keys()
    return kwargs.keys() <= set(names) <= given


def _class_named(classpath: str, own: type[BaseTrigger]) -> type[BaseTrigger]:
    """The class that ``classpath`` means.

    A trigger may serialize as another class (a delta as the moment it amounts to). The text is
    only matched against classes that exist, never imported, and the last part alone is enough:
    a class in a DAG file cannot know under which module name that file is loaded.
    """
    dotted = classpath.replace(":", ".")
    if dotted == classpath_of(own):
        return own
    for kind in trigger_classes():
        if dotted == f"{kind.__module__}.{kind.__qualname__}":
            return kind
    last = dotted.rpartition(".")[2]
    for base in own.__mro__:
        if issubclass(base, BaseTrigger) and base.__name__ == last:
            return base
    return own
