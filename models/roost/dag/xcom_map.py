"""What is made of results to be mapped over: ``.map``, ``.zip``, ``.concat``, literals (H17).

Each knows its length as structure, for the scheduler, and how to find one element when the task
runs, which is all that an instance of a mapped task is ever sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from roost.dag.model import Length
from roost.dag.xcom_arg import XComArg, find_arguments
from roost.exceptions import DagError

if TYPE_CHECKING:
    from roost.dag.expansion import Expansion
    from roost.dag.operator import BaseOperator

__all__ = ["GroupArgument", "Joined", "Literal", "Mapped", "Zipped", "source_of"]


class _Derived(XComArg):
    """Made of other sources."""

    def __init__(self, parts: Sequence[XComArg]) -> None:
        self._parts = parts

    @property
    def roots(self) -> Sequence[BaseOperator]:
        """The tasks that make the parts."""
        return list(dict.fromkeys(argument.operator for argument in self.references()))

    @property
    def leaves(self) -> Sequence[BaseOperator]:
        """The tasks that make the parts."""
        return self.roots

    def references(self) -> Iterator[XComArg]:
        """The plain results that this one is made of."""
        for part in self._parts:
            yield from part.references()

    def resolve(self, context: dict[str, Any]) -> Any:
        """All elements."""
        return [self.element(i, context) for i in range(self.size(context))]

    @abstractmethod
    def element(self, position: int, context: dict[str, Any]) -> Any:
        """The element at ``position``."""

    @abstractmethod
    def size(self, context: dict[str, Any]) -> int:
        """How many there are."""

    @abstractmethod
    def length(self) -> Length:
        """As the scheduler is told."""

    def __getitem__(self, key: str) -> NoReturn:
        raise TypeError("an item can be taken only of the result of a task")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._parts)}>"


class Literal(_Derived):
    """Values that stand in the DAG file."""

    def __init__(self, values: Sequence[Any] | dict[Any, Any]) -> None:
        super().__init__(())
        self.values = list(values.items()) if isinstance(values, dict) else list(values)

    def references(self) -> Iterator[XComArg]:
        """Results among the values."""
        yield from find_arguments(self.values)

    def length(self) -> Length:
        """Their number."""
        return Length("literal", count=len(self.values))

    def element(self, position: int, context: dict[str, Any]) -> Any:
        """The value; None beyond the last."""
        return self.values[position] if position < len(self.values) else None

    def size(self, context: dict[str, Any]) -> int:
        """Their number."""
        return len(self.values)


class Mapped(_Derived):
    """``source.map(function)``."""

    def __init__(self, source: XComArg, function: Callable[[Any], Any]) -> None:
        if not callable(function) or hasattr(function, "override"):
            raise DagError(f"map() takes a plain function, not {function!r}")
        super().__init__((source,))
        self._function = function

    def length(self) -> Length:
        """That of the source."""
        return self._parts[0].length()

    def element(self, position: int, context: dict[str, Any]) -> Any:
        """What the function makes of the source's element."""
        return self._function(self._parts[0].element(position, context))

    def size(self, context: dict[str, Any]) -> int:
        """That of the source."""
        return self._parts[0].size(context)


class Zipped(_Derived):
    """``source.zip(*others)``."""

    def __init__(self, parts: Sequence[Any], fillvalue: Any) -> None:
        super().__init__([source_of(part, "zip()") for part in parts])
        self._fill = fillvalue

    def length(self) -> Length:
        """The shortest part's, or with a fill value the longest one's."""
        parts = [part.length() for part in self._parts]
        return Length("zip", parts=parts, longest=self._fill is not ...)

    def element(self, position: int, context: dict[str, Any]) -> Any:
        """One element of each part."""
        if self._fill is ...:
            return tuple(part.element(position, context) for part in self._parts)
        return tuple(
            part.element(position, context) if position < part.size(context) else self._fill
            for part in self._parts
        )

    def size(self, context: dict[str, Any]) -> int:
        """The shortest part's, or with a fill value the longest one's."""
        sizes = [part.size(context) for part in self._parts]
        return min(sizes) if self._fill is ... else max(sizes)


class Joined(_Derived):
    """``source.concat(*others)``."""

    def __init__(self, parts: Sequence[Any]) -> None:
        super().__init__([source_of(part, "concat()") for part in parts])

    def length(self) -> Length:
        """All parts' together."""
        return Length("concat", parts=[part.length() for part in self._parts])

    def element(self, position: int, context: dict[str, Any]) -> Any:
        """The element of the part that ``position`` falls into."""
        for part in self._parts[:-1]:
            if position < (size := part.size(context)):
                return part.element(position, context)
            position -= size
        return self._parts[-1].element(position, context)

    def size(self, context: dict[str, Any]) -> int:
        """All parts' together."""
        return sum(part.size(context) for part in self._parts)


class GroupArgument(_Derived):
    """A parameter of a mapped group: in each instance the one value that is its own."""

    def __init__(self, expansion: Expansion, name: str) -> None:
        super().__init__(())
        self._expansion = expansion
        self._name = name

    def references(self) -> Iterator[XComArg]:
        """What the group is mapped over."""
        yield from self._expansion.references()

    def resolve(self, context: dict[str, Any]) -> Any:
        """The value of this instance of the group."""
        return self._expansion.argument(self._name, context["ti"].map_index, context)

    def length(self) -> NoReturn:
        """Never asked for: nothing in a mapped group can be mapped."""
        raise DagError(
            f"argument {self._name!r} of a mapped group is one value; nothing in a mapped group "
            "can be mapped again"
        )

    def element(self, position: int, context: dict[str, Any]) -> NoReturn:
        """Never asked for."""
        self.length()

    def size(self, context: dict[str, Any]) -> NoReturn:
        """Never asked for."""
        self.length()

    def __repr__(self) -> str:
        return f"<argument {self._name!r} of a mapped group>"


def source_of(value: object, where: str) -> XComArg:
    """``value`` as something to map over.

    Args:
        value: the result of a task, a list, a tuple or a dict.
        where: for the message, e.g. ``expand(x=…)``.

    Raises:
        DagError: it is something else.
    """
    output = getattr(value, "output", None)
    if isinstance(output, XComArg):  # an operator stands for its result
        return output
    if isinstance(value, XComArg):
        return value
    if isinstance(value, list | tuple | dict):
        return Literal(value)
    raise DagError(
        f"{where} needs a list, tuple or dict, or the result of a task, not {value!r:.200}"
    )
