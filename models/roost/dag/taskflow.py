"""TaskFunction: a function that makes tasks of its DAG (TaskFlow), mapped ones included (H17)."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from roost.dag import scope
from roost.dag.context import CONTEXT_KEYS
from roost.dag.expansion import Expansion, KwargsExpansion, ProductExpansion
from roost.dag.mapped import MappedOperator, check_arguments
from roost.dag.operator import BaseOperator
from roost.dag.xcom_arg import XComArg
from roost.exceptions import DagError

__all__ = ["TaskFunction", "check_parameters", "free_id"]


class TaskFunction:
    """A function that makes a task of its DAG each time it is called while the DAG is defined.

    Calling it returns the task's future result: given to another task, it draws the edge and is
    replaced by the value when that one runs. The plain function is ``function``.

    The call takes anything a type checker knows of: future results stand for values, and
    parameters named like context keys may be left out. Wrong calls are refused at run time.

    Args:
        function: the function.
        operator: gives the class of the task, which takes ``python_callable``, ``op_args`` and
            ``op_kwargs``.
        arguments: arguments of the task.
        constant: arguments of the function that all instances of a mapped task share.
        mark: done with each task that it makes.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        operator: Callable[[], type[BaseOperator]],
        arguments: Mapping[str, Any],
        constant: Mapping[str, Any] | None = None,
        mark: Callable[[BaseOperator], None] | None = None,
    ) -> None:
        if not callable(function):
            raise DagError(f"@task needs a function, not {function!r}")
        self.function = function
        self._operator = operator
        self._arguments = dict(arguments)
        self._constant = dict(constant or {})
        self._mark = mark
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        op_args, op_kwargs = _bind(self.function, args, kwargs)
        arguments = {"op_args": op_args, "op_kwargs": op_kwargs, **self._task_arguments()}
        return self._made(self._operator()(**arguments))

    def override(self, **arguments: Any) -> TaskFunction:
        """The same function with other task arguments, e.g. ``f.override(task_id="g")(1)``."""
        return self._copy(arguments={**self._arguments, **arguments})

    def marked(self, mark: Callable[[BaseOperator], None]) -> TaskFunction:
        """The same function; ``mark`` is done with each task that it makes."""
        return self._copy(mark=mark)

    def partial(self, *args: object, **constant: Any) -> TaskFunction:
        """The same function with arguments that all instances of a mapped task share.

        Raises:
            DagError: the function has no such parameter, or an argument has no name.
        """
        if args:
            raise DagError(f"{self.__name__}.partial() takes arguments by name only")
        check_parameters(self.function, constant, "partial")
        check_arguments(self.__name__, (), constant, self._constant)
        return self._copy(constant={**self._constant, **constant})

    def expand(self, *args: object, **arguments: Any) -> XComArg:
        """A task with an instance for every combination of the values of ``arguments`` (H17).

        Args:
            *args: nothing; values are given by name.
            **arguments: for each, a list, tuple or dict, or the result of a task. The last one
                changes fastest.

        Returns:
            Its future result: the list of what the instances return.

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        check_arguments(self.__name__, args, arguments, self._constant)
        expansion = ProductExpansion(arguments)
        check_parameters(self.function, arguments, "expand")
        _bind(self.function, (), {**self._constant, **arguments})
        return self._map(expansion)

    def expand_kwargs(self, source: Any) -> XComArg:
        """A task with an instance for every dict of arguments in ``source`` (H17).

        Args:
            source: a list of dicts, or the result of a task that returns one.

        Returns:
            Its future result: the list of what the instances return.

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        expansion = KwargsExpansion(source)
        check_arguments(self.__name__, (), dict.fromkeys(expansion.names), self._constant)
        check_parameters(self.function, expansion.names, "expand_kwargs")
        return self._map(expansion)

    def _map(self, expansion: Expansion) -> XComArg:
        constant = {**self._task_arguments(), "op_kwargs": self._constant}
        return self._made(MappedOperator(self._operator(), constant, expansion, into="op_kwargs"))

    def _made(self, task: BaseOperator) -> XComArg:
        if self._mark is not None:
            self._mark(task)
        return task.output

    def _copy(self, **changes: Any) -> TaskFunction:
        now: dict[str, Any] = {
            "arguments": self._arguments, "constant": self._constant, "mark": self._mark,
            **changes,
        }  # fmt: skip
        return TaskFunction(self.function, self._operator, **now)

    def _task_arguments(self) -> dict[str, Any]:
        arguments = dict(self._arguments)
        name = arguments.pop("task_id", None) or self.function.__name__
        arguments.setdefault("multiple_outputs", _returns_dict(self.function))
        arguments.setdefault("doc_md", inspect.getdoc(self.function))
        return {
            "task_id": free_id(name, arguments),
            "python_callable": self.function,
            **arguments,
        }

    def __repr__(self) -> str:
        return f"<@task {self.function.__name__}>"


def check_parameters(function: Callable[..., Any], names: Iterable[str], where: str) -> None:
    """Refuse names that are no parameters of ``function``.

    Raises:
        DagError: names the first such one.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in names:
        found = parameters.get(name)
        if found is None or found.kind in (found.POSITIONAL_ONLY, found.VAR_POSITIONAL):
            raise DagError(f"{where}(): {function.__name__}() has no parameter {name!r} by name")


def free_id(name: str, arguments: Mapping[str, Any]) -> str:
    """``name``, or ``name__1`` and so on when the DAG has a task of that id already."""
    group = arguments.get("task_group")
    dag_of = arguments.get("dag") or (group.dag if group else scope.current_dag())
    if dag_of is None:
        return name
    group = group or scope.current_group()
    free, number = name, 0
    while dag_of.has_task(group.child_id(free) if group else free):
        number += 1
        free = f"{name}__{number}"
    return free


def _bind(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, checked now, where the traceback shows its line.

    Parameters that bear the name of a context key may be left out: the run fills them.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        own = [
            p
            for name, p in signature.parameters.items()
            if name not in CONTEXT_KEYS or name in kwargs
        ]
        reduced = signature.replace(parameters=own)
        try:
            bound = reduced.bind(*args, **kwargs)
        except TypeError:
            raise TypeError(f"{function.__name__}(): {error}") from None
        return _by_name(reduced, bound.arguments)
    return list(args), kwargs


def _by_name(
    signature: inspect.Signature, arguments: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by keyword where possible: context parameters may stand between them."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, value in arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return positional, named


def _returns_dict(function: Callable[..., Any]) -> bool:
    """Whether the annotation says that a dict is returned, whose items are kept one by one."""
    try:
        kind = typing.get_type_hints(function).get("return")
    except Exception:  # an annotation may be anything; then it says nothing
        return False
    kind = typing.get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, Mapping)
