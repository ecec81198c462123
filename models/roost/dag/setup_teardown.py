"""``@setup`` and ``@teardown``: what is made before the work and cleared away after it (H18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from roost.dag.decorators import task
from roost.dag.operator import BaseOperator
from roost.dag.taskflow import TaskFunction
from roost.exceptions import DagError

__all__ = ["setup", "teardown"]


def setup(function: Callable[..., Any]) -> TaskFunction:
    """``@setup``: the tasks that the function makes are setups (:meth:`BaseOperator.as_setup`).

    Args:
        function: a function, or one with ``@task`` already.
    """

    def mark(made: BaseOperator) -> None:
        made.as_setup()

    return _task_function(function, "setup").marked(mark)


@overload
def teardown(function: Callable[..., Any], /) -> TaskFunction: ...
@overload
def teardown(
    *, setups: Any = None, on_failure_fail_dagrun: bool = False
) -> Callable[[Callable[..., Any]], TaskFunction]: ...
def teardown(
    *functions: Callable[..., Any], setups: Any = None, on_failure_fail_dagrun: bool = False
) -> Any:
    """``@teardown``: the function's tasks are teardowns (:meth:`BaseOperator.as_teardown`).

    Args:
        *functions: a function, or one with ``@task`` already, when used bare.
        setups: the setups that it clears up after.
        on_failure_fail_dagrun: whether the run fails when it does.
    """

    def mark(made: BaseOperator) -> None:
        made.as_teardown(setups=setups, on_failure_fail_dagrun=on_failure_fail_dagrun)

    if functions:
        return _task_function(functions[0], "teardown").marked(mark)
    return lambda function: _task_function(function, "teardown").marked(mark)


def _task_function(function: Callable[..., Any], word: str) -> TaskFunction:
    if hasattr(function, "expand") and not isinstance(function, TaskFunction):
        raise DagError(f"@{word} is for tasks: a group of tasks cannot be a {word}")
    return function if isinstance(function, TaskFunction) else task(function)
