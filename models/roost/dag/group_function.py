"""``@task_group``: a group of tasks written as a function, and mapped if wanted (H17, H18)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

from roost.dag.expansion import Expansion, KwargsExpansion, ProductExpansion
from roost.dag.group import TaskGroup
from roost.dag.mapped import check_arguments
from roost.dag.taskflow import check_parameters
from roost.dag.xcom_map import GroupArgument
from roost.exceptions import DagError

__all__ = ["GroupFunction", "task_group"]


class GroupFunction:
    """A function whose body is a group: each call makes one, as ``with TaskGroup(…)`` does.

    The call returns what the function returns, or the group when that is None.

    Args:
        function: the function.
        arguments: arguments of the group.
        constant: arguments of the function that all instances of a mapped group share.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        constant: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise DagError(f"@task_group needs a function, not {function!r}")
        self.function = function
        self._arguments = dict(arguments)
        self._constant = dict(constant or {})
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._make(None, *args, **{**self._constant, **kwargs})

    def override(self, **arguments: Any) -> GroupFunction:
        """The same function with other arguments of the group, e.g. ``group_id``."""
        return GroupFunction(self.function, {**self._arguments, **arguments}, self._constant)

    def partial(self, *args: object, **constant: Any) -> GroupFunction:
        """The same function with arguments that all instances of a mapped group share."""
        if args:
            raise DagError(f"{self.__name__}.partial() takes arguments by name only")
        check_parameters(self.function, constant, "partial")
        check_arguments(self.__name__, (), constant, self._constant)
        return GroupFunction(self.function, self._arguments, {**self._constant, **constant})

    def expand(self, *args: object, **arguments: Any) -> Any:
        """A group that runs once for every combination of the values of ``arguments`` (H17).

        Inside it each argument is one value. Tasks of one instance see each other's results, a
        task outside the group sees the list of all.

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        check_arguments(self.__name__, args, arguments, self._constant)
        expansion = ProductExpansion(arguments)
        check_parameters(self.function, arguments, "expand")
        return self._map(expansion)

    def expand_kwargs(self, source: Any) -> Any:
        """A group that runs once for every dict of arguments in ``source`` (H17).

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        expansion = KwargsExpansion(source)
        check_arguments(self.__name__, (), dict.fromkeys(expansion.names), self._constant)
        check_parameters(self.function, expansion.names, "expand_kwargs")
        # Which arguments come is known only when it runs: all that are not given elsewhere.
        own = [n for n in inspect.signature(self.function).parameters if n not in self._constant]
        expansion.names = expansion.names or frozenset(own)
        return self._map(expansion)

    def _map(self, expansion: Expansion) -> Any:
        mapped = {name: GroupArgument(expansion, name) for name in sorted(expansion.names)}
        return self._make(expansion, **self._constant, **mapped)

    def _make(self, expansion: Expansion | None, /, *args: Any, **kwargs: Any) -> Any:
        try:
            inspect.signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.__name__}(): {error}") from None
        arguments = {
            "group_id": self.function.__name__,
            "tooltip": inspect.getdoc(self.function) or "",
            "add_suffix_on_collision": True,
            **self._arguments,
        }
        with TaskGroup(expansion=expansion, **arguments) as group:
            returned = self.function(*args, **kwargs)
        return group if returned is None else returned

    def __repr__(self) -> str:
        return f"<@task_group {self.function.__name__}>"


@overload
def task_group(function: Callable[..., Any], /) -> GroupFunction: ...
@overload
def task_group(**arguments: Any) -> Callable[[Callable[..., Any]], GroupFunction]: ...
def task_group(*functions: Any, **arguments: Any) -> Any:
    """Make a group of tasks of a function.

    Args:
        *functions: the function, when the decorator is used bare.
        **arguments: see TaskGroup; ``group_id`` is the function's name by default.
    """
    if functions:
        (function,) = functions
        if isinstance(function, str):  # @task_group("name")
            return lambda inner: GroupFunction(inner, {"group_id": function, **arguments})
        return GroupFunction(function, arguments)
    return lambda inner: GroupFunction(inner, arguments)
