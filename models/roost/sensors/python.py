"""PythonSensor: wait until a function says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from roost.dag.past import Context
from roost.dag.python import context_arguments
from roost.exceptions import DagError
from roost.sensors.base import BaseSensorOperator, PokeReturnValue

__all__ = ["PythonSensor"]


class PythonSensor(BaseSensorOperator):
    """Wait until ``python_callable`` returns something true.

    It has no trigger, because a function cannot be sent to one: ``deferrable=True`` waits as
    ``mode="reschedule"`` does, without a slot or a process.

    Args:
        python_callable: the function; parameters named like context keys receive them. A
            PokeReturnValue leaves an XCom, too.
        op_args: positional arguments, templated.
        op_kwargs: keyword arguments, templated.
        templates_dict: rendered and given as the context key ``templates_dict``.
        **kwargs: see BaseSensorOperator.
    """

    template_fields = ("op_args", "op_kwargs", "templates_dict")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Iterable[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(python_callable):
            raise DagError(
                f"task {self.task_id!r}: python_callable must be a function, "
                f"not {python_callable!r}"
            )
        self.python_callable = python_callable
        self.op_args = list(op_args or ())
        self.op_kwargs = dict(op_kwargs or {})
        self.templates_dict = dict(templates_dict) if templates_dict is not None else None

    def poke(self, context: dict[str, Any]) -> bool | PokeReturnValue:
        """Call the function."""
        if self.templates_dict is not None:
            context = Context({**context, "templates_dict": self.templates_dict})
        given = context_arguments(self.python_callable, self.op_args, self.op_kwargs, context)
        found = self.python_callable(*self.op_args, **given)
        return found if isinstance(found, PokeReturnValue) else bool(found)
