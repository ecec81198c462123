"""Operators that call a Python function, and the arguments they give it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from roost.dag.branching import branch_skips
from roost.dag.operator import BaseOperator
from roost.dag.past import Context, past_of
from roost.exceptions import DagError

__all__ = ["BranchPythonOperator", "PythonOperator", "context_arguments", "prewarm_function"]


class _Parameters(NamedTuple):
    """What a function takes by name, by position, and whether it takes any keyword."""

    named: tuple[str, ...]
    ordered: tuple[str, ...]
    any_keyword: bool


def _parameters(function: Callable[..., Any]) -> _Parameters | None:
    """The parameters of ``function``; None for a built-in one without a signature."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return _Parameters(
        tuple(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)),
        tuple(p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)),
        any(p.kind is p.VAR_KEYWORD for p in found),
    )


# Plain functions only: they are themselves and nothing else by hash and equality.
_known_parameters = functools.lru_cache(maxsize=1024)(_parameters)


def prewarm_function(function: object) -> None:
    """Look at the parameters of a function before the tasks that call it are forked."""
    if type(function) is FunctionType:
        _known_parameters(function)


def context_arguments(
    function: Callable[..., Any], args: Iterable[Any], given: Mapping[str, Any], context: Any
) -> dict[str, Any]:
    """Keyword arguments for ``function``: those ``given``, and what it asks of the context.

    A function with ``**kwargs`` gets the whole context, another one what its parameters name.

    Raises:
        DagError: an argument is given that bears the name of a context key the function takes.
    """
    plain = type(function) is FunctionType
    takes = _known_parameters(function) if plain else _parameters(function)
    if takes is None:
        return dict(given)  # without a signature it cannot ask for context either
    if takes.any_keyword:
        return {**context, **past_of(function, context), **given}
    # Parameters that positional arguments fill are taken.
    taken = set(takes.ordered[: len(list(args))])
    asked = {name: context[name] for name in takes.named if name in context and name not in taken}
    return {**asked, **given}


class PythonOperator(BaseOperator):
    """Call ``python_callable``; what it returns is kept as an XCom (S55).

    Args:
        python_callable: the function. Parameters named like context keys receive them.
        op_args: positional arguments, templated.
        op_kwargs: keyword arguments, templated.
        templates_dict: rendered and given as the context key ``templates_dict``.
        provide_context: accepted from older DAGs; the context is always provided.
        **kwargs: see BaseOperator.

    Raises:
        DagError: ``python_callable`` cannot be called.
    """

    template_fields = ("op_args", "op_kwargs", "templates_dict")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Iterable[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: Mapping[str, Any] | None = None,
        provide_context: bool = True,
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

    def execute(self, context: dict[str, Any]) -> Any:
        """Call the function."""
        if self.templates_dict is not None:
            context = Context({**context, "templates_dict": self.templates_dict})
        arguments = context_arguments(self.python_callable, self.op_args, self.op_kwargs, context)
        return self.python_callable(*self.op_args, **arguments)


class BranchPythonOperator(PythonOperator):
    """Follow the direct children that ``python_callable`` names; skip the others (S70-S73)."""

    def execute(self, context: dict[str, Any]) -> Any:
        """Call the function and note what to skip; the choice is kept as an XCom."""
        chosen = super().execute(context)
        context["ti"].skip_downstream(branch_skips(self, chosen))
        return chosen
