"""XComArg: the future result of a task, given as an argument to another (TaskFlow).

What can be mapped over is made of such results too (:mod:`roost.dag.xcom_map`): they tell the
scheduler how long they are, and a task process takes out of them the one element that is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from roost.dag import runtime, xcom_value
from roost.dag.model import Length
from roost.dag.node import Node
from roost.exceptions import RoostException
from roost.support.task_requests import XComPull

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

    from roost.dag.operator import BaseOperator

__all__ = ["RETURN_KEY", "XComArg", "find_arguments"]

RETURN_KEY = "return_value"


class XComArg(Node):
    """Stands for the XCom ``key`` of ``operator``; replaced by the value before execute().

    ``arg["name"]`` stands for the item of that name of a task with ``multiple_outputs``. Of a
    mapped task it is the list of what its instances left.
    """

    def __init__(self, operator: BaseOperator, key: str = RETURN_KEY) -> None:
        self.operator = operator
        self.key = key

    @property
    def roots(self) -> Sequence[BaseOperator]:
        """The task that makes the value."""
        return (self.operator,)

    @property
    def leaves(self) -> Sequence[BaseOperator]:
        """The task that makes the value."""
        return (self.operator,)

    def __getitem__(self, key: str) -> XComArg:
        if not isinstance(key, str):
            raise TypeError(f"result of {self._told()}: only a str key can be taken, not {key!r}")
        return XComArg(self.operator, key)

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"the result of {self._told()} exists only when the DAG runs and cannot be iterated "
            "while it is defined; map a task over it with expand()"
        )

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, XComArg)
            and other.operator is self.operator
            and other.key == self.key
        )

    def __hash__(self) -> int:
        return hash((id(self.operator), self.key))

    def __str__(self) -> str:
        # Inside an f-string or a Bash command it becomes a template of its own.
        key = "" if self.key == RETURN_KEY else f", key={self.key!r}"
        return f"{{{{ ti.xcom_pull(task_ids={self.operator.task_id!r}{key}) }}}}"

    def __repr__(self) -> str:
        return f"<XComArg {self.operator.task_id}[{self.key!r}]>"

    def __enter__(self) -> XComArg:
        """Tasks made inside stand between a setup and its teardown (H18)."""
        self.operator.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.operator.__exit__(kind, error, traceback)

    def as_setup(self) -> XComArg:
        """Make the task a setup; see :meth:`BaseOperator.as_setup`."""
        self.operator.as_setup()
        return self

    def as_teardown(self, **arguments: Any) -> XComArg:
        """Make the task a teardown; see :meth:`BaseOperator.as_teardown`."""
        self.operator.as_teardown(**arguments)
        return self

    # -- what a task can be mapped over (H17)

    def map(self, function: Callable[[Any], Any]) -> XComArg:
        """The same with ``function`` applied to each element, in the process of each instance.

        ``SkipTask`` raised by it skips that instance.

        Raises:
            DagError: it is no function.
        """
        made: XComArg = _derived().Mapped(self, function)
        return made

    def zip(self, *others: Any, fillvalue: Any = ...) -> XComArg:
        """Tuples of the elements at one place of this and ``others``.

        Args:
            *others: results or lists.
            fillvalue: what stands for the missing elements of shorter ones; without it the
                shortest one ends the zip.
        """
        made: XComArg = _derived().Zipped([self, *others], fillvalue)
        return made

    def concat(self, *others: Any) -> XComArg:
        """The elements of this, then those of each of ``others``, results or lists."""
        made: XComArg = _derived().Joined([self, *others])
        return made

    def references(self) -> Iterator[XComArg]:
        """The plain results that this one is made of."""
        yield self

    def length(self) -> Length:
        """How many elements there are, as the scheduler is told."""
        return Length("xcom", task_id=self.operator.task_id, key=self.key)

    def resolve(self, context: dict[str, Any]) -> Any:
        """The value, None where the task left none."""
        return context["ti"].xcom_pull(task_ids=self.operator.task_id, key=self.key)

    def element(self, position: int, context: dict[str, Any]) -> Any:
        """The element at ``position``, taken when the task runs."""
        return self._ask(XComPull([self.operator.task_id], self.key, element=position))

    def size(self, context: dict[str, Any]) -> int:
        """How many elements there are, when the task runs.

        Raises:
            RoostException: the value is none that can be mapped over.
        """
        found = self._ask(XComPull([self.operator.task_id], self.key, measure=True))
        if not isinstance(found, int):
            raise RoostException(f"the result of {self._told()} is no list or dict to map over")
        return found

    def _ask(self, request: XComPull) -> Any:
        request.gather = self.operator.is_mapped or self.operator.mapped_group is not None
        found = runtime.ask(request, f"result of {self._told()}").values[0]
        return xcom_value.decode(found, gathered=request.gather and request.element is None)

    def _told(self) -> str:
        return repr(self.operator.task_id)


def _derived() -> ModuleType:
    from roost.dag import xcom_map  # it subclasses XComArg

    return xcom_map


def find_arguments(value: object, seen: set[int] | None = None) -> Iterator[XComArg]:
    """Every plain result inside ``value``, through containers and templated objects (S66)."""
    if isinstance(value, XComArg):
        yield from value.references()
        return
    if value is None or isinstance(value, str | bytes | int | float | type):
        return
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        inner: list[object] = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
    else:
        fields = getattr(value, "template_fields", ())
        if not isinstance(fields, list | tuple | set | frozenset):
            return
        inner = [getattr(value, name, None) for name in fields]
    for item in inner:
        yield from find_arguments(item, seen)
