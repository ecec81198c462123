"""Mapped tasks: ``Operator.partial(…).expand(…)`` (H17).

A mapped task stands in the DAG once, with the knobs that all its instances share. The operator of
an instance is made in the instance's own process, from the arguments of its ``map_index``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

from roost.dag import defaults, scope
from roost.dag.definition import DAG
from roost.dag.expansion import Expansion, KwargsExpansion, ProductExpansion
from roost.dag.operator import BaseOperator
from roost.dag.xcom_arg import XComArg, find_arguments
from roost.exceptions import DagError

__all__ = ["MappedOperator", "OperatorPartial", "check_arguments"]

# Arguments of BaseOperator that each instance may have for itself: nothing is decided by them.
_OWN = frozenset({"params"})
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class OperatorPartial:
    """The constant arguments of a mapped task; ``expand`` or ``expand_kwargs`` makes it one.

    Args:
        operator: the class of its instances.
        constant: arguments that all instances share.
    """

    def __init__(self, operator: type[BaseOperator], constant: Mapping[str, Any]) -> None:
        if "task_id" not in constant:
            raise DagError(f"{operator.__name__}.partial() needs a task_id")
        _check_known(operator, constant, "partial")
        self._operator = operator
        self._constant = dict(constant)
        group = constant.get("task_group")
        self._dag = constant.get("dag") or (group.dag if group else scope.current_dag())
        if isinstance(self._dag, DAG):
            self._dag.unexpanded[self] = self._told()

    def expand(self, *args: object, **arguments: Any) -> MappedOperator:
        """A task with an instance for every combination of the values of ``arguments``.

        Args:
            *args: nothing; values are given by name.
            **arguments: for each, a list, tuple or dict, or the result of a task. The last one
                changes fastest.

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        of = self._told()
        check_arguments(of, args, arguments, self._constant)
        for name in arguments:
            if name in _knobs() - _OWN:
                raise DagError(f"{of}: {name} is one for all instances: give it to partial()")
        _check_known(self._operator, arguments, "expand")
        return self._make(ProductExpansion(arguments))

    def expand_kwargs(self, source: Any) -> MappedOperator:
        """A task with an instance for every dict of arguments in ``source``.

        Args:
            source: a list of dicts, or the result of a task that returns one.

        Raises:
            DagError: names what cannot be mapped, and why.
        """
        expansion = KwargsExpansion(source)
        check_arguments(self._told(), (), dict.fromkeys(expansion.names), self._constant)
        _check_known(self._operator, expansion.names, "expand_kwargs")
        return self._make(expansion)

    def _make(self, expansion: Expansion) -> MappedOperator:
        made = MappedOperator(self._operator, self._constant, expansion)
        if isinstance(self._dag, DAG):
            self._dag.unexpanded.pop(self, None)
        return made

    def _told(self) -> str:
        return f"task {self._constant['task_id']!r}"


class MappedOperator(BaseOperator):
    """A task that is mapped over values: as many instances in a run as there are.

    Args:
        operator: the class of its instances.
        constant: arguments that they share, knobs included.
        expansion: what differs.
        into: the argument, a dict, that takes what differs; None: each is an argument itself.
    """

    is_mapped: ClassVar[bool] = True

    # The knobs are those of BaseOperator, whose defaults the class of the instances may change.
    def __init__(
        self,
        operator: type[BaseOperator],
        constant: Mapping[str, Any],
        expansion: Expansion,
        into: str | None = None,
    ) -> None:
        self.operator_class = operator
        self.expansion = expansion
        self._constant = dict(constant)
        self._into = into
        self._defaults = defaults.collect(constant)
        knobs = {name: value for name, value in constant.items() if name in _knobs()}
        for name, value in _class_defaults(operator).items():
            if name not in self._defaults:
                knobs.setdefault(name, value)
        super().__init__(**knobs)
        told = constant.get("start_from_trigger", operator.start_from_trigger)
        self.start_from_trigger = bool(told)
        self.start_trigger_args = operator.start_trigger_args
        of = f"task {self.task_id!r}"
        if self.mapped_group is not None:
            raise DagError(
                f"{of} cannot be mapped inside the mapped group "
                f"{self.mapped_group.group_id!r}: map one of the two"
            )
        expansion.check_length(of)

    @property
    def task_type(self) -> str:
        """The class of its instances, by name."""
        return self.operator_class.__name__

    def find_references(self) -> Iterator[XComArg]:
        """The results that its arguments and what it is mapped over are made of."""
        yield from self.expansion.references()
        constant = self._constant
        for value in constant.values():
            yield from find_arguments(value)

    def instance(self, map_index: int, context: dict[str, Any]) -> BaseOperator:
        """The operator of one instance, made when it runs.

        Args:
            map_index: which, from 0 up.
            context: its context.
        """
        picked = self.expansion.pick(map_index, context)
        arguments = dict(self._constant)
        for name in ("task_id", "dag", "task_group", "default_args"):
            arguments.pop(name, None)
        if self._into is None:
            arguments.update(picked.arguments)
        else:
            arguments[self._into] = {**(arguments.get(self._into) or {}), **picked.arguments}
        with scope.detached():
            made = self.operator_class(
                task_id=self.task_id, default_args=self._defaults, **arguments
            )
        made.stand_for(self)
        made.verbatim = picked.verbatim
        return made

    def execute(self, context: dict[str, Any]) -> NoReturn:
        """Never called: an instance is run, not the mapped task."""
        raise DagError(f"task {self.task_id!r} is mapped: only an instance of it can run")


def check_arguments(
    of: str, args: Iterable[object], arguments: Mapping[str, Any], constant: Mapping[str, Any]
) -> None:
    """Refuse what can be neither mapped nor told apart.

    Raises:
        DagError: an argument has no name, or is given to partial() as well.
    """
    if tuple(args):
        raise DagError(f"{of}: expand() takes arguments by name only, e.g. expand(x=[1, 2])")
    for name in arguments:
        if name in constant:
            raise DagError(f"{of}: {name} is given to partial() and to expand(); give it to one")


@functools.cache
def _knobs() -> frozenset[str]:
    return frozenset(inspect.signature(BaseOperator.__init__).parameters) - {"self"}


@functools.cache
def _accepted(operator: type[BaseOperator]) -> frozenset[str] | None:
    """Names that the class and those above it take; None: anything."""
    names: set[str] = set()
    for kind in operator.__mro__:
        if "__init__" not in kind.__dict__ or kind is object:
            continue
        parameters = inspect.signature(kind.__dict__["__init__"]).parameters.values()
        names.update(p.name for p in parameters if p.kind in _KINDS)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(names - {"self"})


def _class_defaults(operator: type[BaseOperator]) -> dict[str, Any]:
    """Defaults that the class has for knobs of BaseOperator, the nearest winning."""
    found: dict[str, Any] = {}
    for kind in operator.__mro__:
        if kind is BaseOperator:
            break
        if "__init__" in kind.__dict__:
            for p in inspect.signature(kind.__dict__["__init__"]).parameters.values():
                if p.kind in _KINDS and p.name in _knobs() and p.default is not p.empty:
                    found.setdefault(p.name, p.default)
    return found


def _check_known(operator: type[BaseOperator], names: Iterable[str], where: str) -> None:
    accepted = _accepted(operator)
    for name in names:
        if accepted is not None and name not in accepted:
            raise DagError(f"{where}(): {operator.__name__} has no argument {name!r}")
