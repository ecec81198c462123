"""default_args: arguments of a DAG or a group that fill what a task leaves out (S6).

Every ``__init__`` of an operator class hierarchy fills the arguments that it names itself, so an
argument that a subclass passes on explicitly wins over the default, as one from the user does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from roost.dag import scope

__all__ = ["collect", "filling_defaults"]

# Identity and placement of a task are never defaults.
_NEVER = frozenset({"task_id", "dag", "task_group", "default_args"})
_SLOT = "_roost_defaults"


def filling_defaults(
    init: Callable[..., None], finish: Callable[[Any], None]
) -> Callable[..., None]:
    """``init`` with missing arguments filled; ``finish(self)`` runs after the outermost one."""
    parameters = list(inspect.signature(init).parameters.values())[1:]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    fillable = [name for name in named if name not in _NEVER]

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        outermost = _SLOT not in self.__dict__
        if outermost:
            self.__dict__[_SLOT] = collect(kwargs)
        defaults = self.__dict__[_SLOT]
        if defaults:
            given = positional[: len(args)]
            for name in fillable:
                if name in defaults and name not in kwargs and name not in given:
                    kwargs[name] = defaults[name]
        init(self, *args, **kwargs)
        if outermost:
            del self.__dict__[_SLOT]
            finish(self)

    return wrapper


def collect(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that hold for a task made with ``kwargs``, the nearest winning."""
    group = kwargs.get("task_group")
    if group is None and kwargs.get("dag") is None:
        group = scope.current_group()
    dag = kwargs.get("dag") or (group.dag if group is not None else scope.current_dag())
    defaults: dict[str, Any] = {}
    # A wrong `dag` is reported by the operator itself, with a better message.
    defaults.update(getattr(dag, "default_args", None) or {})
    for around in reversed(list(group.lineage()) if group is not None else []):
        defaults.update(around.default_args)
    defaults.update(kwargs.get("default_args") or {})
    return defaults
