"""Into what a mapped task or group expands, and the arguments of each instance (H17)."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from roost.dag.model import SerializedExpand
from roost.dag.xcom_arg import XComArg, find_arguments
from roost.dag.xcom_map import Literal, source_of
from roost.exceptions import DagError, RoostException

__all__ = ["Expansion", "KwargsExpansion", "Picked", "ProductExpansion", "max_map_length"]

_MAX_MAP_LENGTH = 1024


class Picked(NamedTuple):
    """The arguments of one instance.

    Attributes:
        arguments: by name.
        verbatim: those values that came from XComs: they are no templates, whatever they hold.
    """

    arguments: dict[str, Any]
    verbatim: list[Any]


class Expansion(ABC):
    """What ``expand`` or ``expand_kwargs`` was given."""

    #: The names of the arguments as far as they are known while the DAG is defined.
    names: frozenset[str]

    @abstractmethod
    def factors(self) -> list[XComArg]:
        """What the instances are the product of."""

    @abstractmethod
    def pick(self, map_index: int, context: dict[str, Any]) -> Picked:
        """The arguments of the instance ``map_index``, taken when it runs."""

    def argument(self, name: str, map_index: int, context: dict[str, Any]) -> Any:
        """One of the arguments of the instance ``map_index``."""
        arguments = self.pick(map_index, context).arguments
        if name not in arguments:
            raise RoostException(f"expand_kwargs gave instance {map_index} no argument {name!r}")
        return arguments[name]

    def references(self) -> Iterator[XComArg]:
        """The results that it waits for."""
        for factor in self.factors():
            yield from factor.references()

    def serialize(self) -> SerializedExpand:
        """As the scheduler is told."""
        return SerializedExpand([factor.length() for factor in self.factors()])

    def check_length(self, of: str) -> None:
        """Refuse more instances than ``max_map_length``, as far as literals tell.

        Raises:
            DagError: there would be more.
        """
        lengths = [len(f.values) for f in self.factors() if isinstance(f, Literal)]
        count = (
            math.prod(lengths) if len(lengths) == len(self.factors()) else max(lengths, default=0)
        )
        if count > max_map_length():
            raise DagError(
                f"{of} is mapped over {count} values, more than core.max_map_length "
                f"({max_map_length()}); map over fewer, or raise that setting"
            )


class ProductExpansion(Expansion):
    """``expand(x=…, y=…)``: every combination, the last argument changing fastest."""

    def __init__(self, arguments: Mapping[str, object]) -> None:
        if not arguments:
            raise DagError("expand() needs an argument to map over, e.g. expand(x=[1, 2])")
        self._sources = {
            name: source_of(value, f"expand({name}=…)") for name, value in arguments.items()
        }
        self.names = frozenset(arguments)

    def factors(self) -> list[XComArg]:
        """One for each argument."""
        return list(self._sources.values())

    def pick(self, map_index: int, context: dict[str, Any]) -> Picked:
        """One value of each argument."""
        arguments: dict[str, Any] = {}
        verbatim: list[Any] = []
        for name, source, place in self._places(map_index, context):
            arguments[name] = source.element(place, context)
            if not isinstance(source, Literal):
                verbatim.append(arguments[name])
        return Picked(arguments, verbatim)

    def argument(self, name: str, map_index: int, context: dict[str, Any]) -> Any:
        """One of the arguments; the values of the others are not asked for."""
        for other, source, place in self._places(map_index, context):
            if other == name:
                return _rendered(source, place, context)
        raise RoostException(f"the group is not mapped over {name!r}")

    def _places(
        self, map_index: int, context: dict[str, Any]
    ) -> Iterator[tuple[str, XComArg, int]]:
        """Which element of each argument an instance has; the first one needs no length."""
        names = list(self._sources)
        for name in reversed(names[1:]):
            source = self._sources[name]
            map_index, place = divmod(map_index, source.size(context))
            yield name, source, place
        yield names[0], self._sources[names[0]], map_index


class KwargsExpansion(Expansion):
    """``expand_kwargs(…)``: an instance for each dict of arguments."""

    def __init__(self, source: object) -> None:
        if isinstance(source, dict):
            raise DagError("expand_kwargs() needs a list of dicts, not one dict")
        self._source = source_of(source, "expand_kwargs()")
        self.names = frozenset()
        if isinstance(self._source, Literal):
            for item in self._source.values:
                if not isinstance(item, XComArg):
                    self.names |= frozenset(_checked(item))

    def factors(self) -> list[XComArg]:
        """One."""
        return [self._source]

    def pick(self, map_index: int, context: dict[str, Any]) -> Picked:
        """The dict at ``map_index``."""
        found = self._source.element(map_index, context)
        literal = isinstance(self._source, Literal) and not isinstance(found, XComArg)
        if isinstance(found, XComArg):
            found = found.resolve(context)
        arguments = _checked(found)
        return Picked(dict(arguments), [] if literal else list(arguments.values()))


def _checked(item: object) -> dict[str, Any]:
    if not isinstance(item, dict) or not all(isinstance(key, str) for key in item):
        raise DagError(f"expand_kwargs() needs dicts with str keys, not {item!r:.200}")
    return item


def _rendered(source: XComArg, place: int, context: dict[str, Any]) -> Any:
    """An element; results among literal values become what they stand for."""
    value = source.element(place, context)
    if isinstance(source, Literal) and any(find_arguments(value)):
        from roost.dag.template import Renderer  # it knows XComArg, not the other way round

        return Renderer(context["task"], context).render(value)
    return value


def max_map_length() -> int:
    """``core.max_map_length`` as the process that started this one passed it on."""
    text = os.environ.get("ROOST__CORE__MAX_MAP_LENGTH", "")
    return int(text) if text.isdigit() else _MAX_MAP_LENGTH
