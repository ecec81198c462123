"""Operators behind the kinds of ``@task`` that are more than a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from roost.dag.python import context_arguments
from roost.dag.template import Renderer
from roost.exceptions import DagError, RoostException
from roost.operators.bash import BashOperator

__all__ = ["BashFunctionOperator"]


class BashFunctionOperator(BashOperator):
    """``@task.bash``: run the command that a function returns.

    The command is a template, as that of a BashOperator is; it is rendered when the function has
    returned it. Values that others choose go in by ``env``, not by the text.

    Args:
        python_callable: the function. Parameters named like context keys receive them.
        op_args: its positional arguments, templated.
        op_kwargs: its keyword arguments, templated.
        **kwargs: see BashOperator.

    Raises:
        DagError: ``python_callable`` cannot be called, or ``bash_command`` is given.
    """

    template_fields = ("op_args", "op_kwargs", "env", "cwd")  # type: ignore[assignment]

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Iterable[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "bash_command" in kwargs:
            raise DagError("@task.bash takes no bash_command: the function returns it")
        super().__init__(bash_command=None, **kwargs)
        if not callable(python_callable):
            raise DagError(f"task {self.task_id!r}: python_callable must be a function")
        self.python_callable = python_callable
        self.op_args = list(op_args or ())
        self.op_kwargs = dict(op_kwargs or {})

    def execute(self, context: dict[str, Any]) -> Any:
        """Call the function, then run what it returned."""
        arguments = context_arguments(self.python_callable, self.op_args, self.op_kwargs, context)
        command = self.python_callable(*self.op_args, **arguments)
        if not isinstance(command, str) or not command.strip():
            raise RoostException(
                f"task {self.task_id!r}: a @task.bash function must return a command, "
                f"not {command!r:.200}"
            )
        self.bash_command = Renderer(self, context).render(command)
        return super().execute(context)
