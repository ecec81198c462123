"""``@task`` and ``@dag``: tasks and DAGs written as functions (TaskFlow)."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, ParamSpec, overload

from roost.dag import scope
from roost.dag.context import CONTEXT_KEYS
from roost.dag.definition import DAG
from roost.dag.param import DagParam
from roost.dag.python import BranchPythonOperator, PythonOperator
from roost.dag.xcom_arg import XComArg
from roost.exceptions import DagError

__all__ = ["TaskFunction", "dag", "task"]

_P = ParamSpec("_P")


class TaskFunction:
    """A function that makes a task of its DAG each time it is called while the DAG is defined.

    Calling it returns the task's future result: given to another task, it draws the edge and is
    replaced by the value when that one runs. The plain function is ``function``.

    The call takes anything a type checker knows of: future results stand for values, and
    parameters named like context keys may be left out. Wrong calls are refused at run time.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        operator: type[PythonOperator],
        arguments: Mapping[str, Any],
    ) -> None:
        if not callable(function):
            raise DagError(f"@task needs a function, not {function!r}")
        self.function = function
        self._operator = operator
        self._arguments = dict(arguments)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        op_args, op_kwargs = _bind(self.function, args, kwargs)
        arguments = dict(self._arguments)
        name = arguments.pop("task_id", None) or self.function.__name__
        arguments.setdefault("multiple_outputs", _returns_dict(self.function))
        arguments.setdefault("doc_md", inspect.getdoc(self.function))
        operator = self._operator(
            task_id=_free_id(name, arguments),
            python_callable=self.function,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **arguments,
        )
        return XComArg(operator)

    def override(self, **arguments: Any) -> TaskFunction:
        """The same function with other task arguments, e.g. ``f.override(task_id="g")(1)``."""
        return TaskFunction(self.function, self._operator, {**self._arguments, **arguments})

    def expand(self, **kwargs: Any) -> NoReturn:
        """Task mapping is not available."""
        raise DagError("task mapping (partial/expand) is not available in this version of Roost")

    expand_kwargs = partial = expand

    def __repr__(self) -> str:
        return f"<@task {self.function.__name__}>"


class _TaskDecorator:
    """``@task`` in its forms: bare, with arguments, and ``@task.branch``."""

    def __init__(self, operator: type[PythonOperator]) -> None:
        self._operator = operator

    @overload
    def __call__(self, function: Callable[..., Any], /) -> TaskFunction: ...
    @overload
    def __call__(self, **arguments: Any) -> Callable[[Callable[..., Any]], TaskFunction]: ...
    def __call__(self, *functions: Any, **arguments: Any) -> Any:
        """Make a task of a function.

        Args:
            *functions: the function, when the decorator is used bare.
            **arguments: arguments of the operator, e.g. ``task_id``, ``retries``, ``pool``.
        """
        if functions:
            (function,) = functions
            return TaskFunction(function, self._operator, arguments)
        return lambda inner: TaskFunction(inner, self._operator, arguments)


class _Task(_TaskDecorator):
    """The decorator that users import; its attributes are the other kinds of task."""

    python = _TaskDecorator(PythonOperator)
    branch = _TaskDecorator(BranchPythonOperator)


task = _Task(PythonOperator)


@overload
def dag(dag_id: Callable[_P, Any], /) -> Callable[_P, DAG]: ...
@overload
def dag(
    dag_id: str | None = None, **arguments: Any
) -> Callable[[Callable[_P, Any]], Callable[_P, DAG]]: ...
def dag(dag_id: Any = None, **arguments: Any) -> Any:
    """Make a DAG of a function: its body runs inside ``with DAG(…)`` each time it is called.

    A parameter of the function is a parameter of the DAG, with the argument as its default.

    Args:
        dag_id: default: the name of the function.
        **arguments: see DAG.
    """
    if callable(dag_id):
        return _dag_factory(dag_id, None, {})
    return lambda function: _dag_factory(function, dag_id, arguments)


def _dag_factory(
    function: Callable[..., Any], dag_id: str | None, arguments: Mapping[str, Any]
) -> Callable[..., DAG]:
    @functools.wraps(function)
    def factory(*args: Any, **kwargs: Any) -> DAG:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = {"doc_md": inspect.getdoc(function), **arguments}
        settings["params"] = {**(settings.get("params") or {}), **bound.arguments}
        made = DAG(dag_id or function.__name__, **settings)
        made.fileloc = function.__code__.co_filename
        # Its parameters are values only when a run is under way: a stand-in goes in for each.
        with made:
            function(**{name: DagParam(name) for name in bound.arguments})
        scope.note_declaration(made, scope.caller(0))
        return made

    return factory


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


def _free_id(name: str, arguments: Mapping[str, Any]) -> str:
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


def _returns_dict(function: Callable[..., Any]) -> bool:
    """Whether the annotation says that a dict is returned, whose items are kept one by one."""
    try:
        kind = typing.get_type_hints(function).get("return")
    except Exception:  # an annotation may be anything; then it says nothing
        return False
    kind = typing.get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, Mapping)
