"""``@task`` and its kinds, and ``@dag``: tasks and DAGs written as functions (TaskFlow)."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, overload

from roost.dag import scope
from roost.dag.definition import DAG
from roost.dag.operator import BaseOperator
from roost.dag.param import DagParam, merged
from roost.dag.python import BranchPythonOperator, PythonOperator
from roost.dag.taskflow import TaskFunction
from roost.exceptions import DagError

__all__ = ["TaskFunction", "dag", "task"]

_P = ParamSpec("_P")


class _TaskDecorator:
    """``@task`` in its forms: bare, with arguments, and ``@task.branch`` and so on.

    Args:
        operator: gives the class of the tasks.
    """

    def __init__(self, operator: Callable[[], type[BaseOperator]]) -> None:
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


def _from(module: str, name: str) -> Callable[[], type[BaseOperator]]:
    """An operator of a layer above this one: found by name, when the first such task is made."""

    def find() -> type[BaseOperator]:
        found: type[BaseOperator] = getattr(importlib.import_module(module), name)
        return found

    return find


class _Task(_TaskDecorator):
    """The decorator that users import; its attributes are the other kinds of task."""

    python = _TaskDecorator(lambda: PythonOperator)
    branch = _TaskDecorator(lambda: BranchPythonOperator)
    short_circuit = _TaskDecorator(_from("roost.operators", "ShortCircuitOperator"))
    bash = _TaskDecorator(_from("roost.operators.decorated", "BashFunctionOperator"))
    sensor = _TaskDecorator(_from("roost.sensors", "PythonSensor"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what inspect and doctest probe for
            raise AttributeError(name)
        known = ", ".join(sorted(n for n in vars(_Task) if not n.startswith("_")))
        raise DagError(f"there is no @task.{name} in Roost; the kinds of task are: {known}")


task = _Task(lambda: PythonOperator)


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
        settings["params"] = merged(settings.get("params") or {}, bound.arguments)
        made = DAG(dag_id or function.__name__, **settings)
        made.fileloc = function.__code__.co_filename
        # Its parameters are values only when a run is under way: a stand-in goes in for each.
        with made:
            function(**{name: DagParam(name) for name in bound.arguments})
        scope.note_declaration(made, scope.caller(0))
        return made

    return factory
