"""XComArg: the future result of a task, given as an argument to another (TaskFlow)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from roost.dag.node import Node

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["RETURN_KEY", "XComArg", "find_arguments"]

RETURN_KEY = "return_value"


class XComArg(Node):
    """Stands for the XCom ``key`` of ``operator``; replaced by the value before execute().

    ``arg["name"]`` stands for the item of that name of a task with ``multiple_outputs``.
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
            raise TypeError(
                f"result of {self.operator.task_id!r}: only a str key can be taken before the "
                f"task has run, not {key!r}"
            )
        return XComArg(self.operator, key)

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"the result of {self.operator.task_id!r} exists only when the DAG runs and cannot "
            "be iterated while it is defined"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, XComArg) and other.operator is self.operator and other.key == self.key
        )

    def __hash__(self) -> int:
        return hash((id(self.operator), self.key))

    def __str__(self) -> str:
        # Inside an f-string or a Bash command it becomes a template of its own.
        key = "" if self.key == RETURN_KEY else f", key={self.key!r}"
        return f"{{{{ ti.xcom_pull(task_ids={self.operator.task_id!r}{key}) }}}}"

    def __repr__(self) -> str:
        return f"<XComArg {self.operator.task_id}[{self.key!r}]>"

    def resolve(self, context: dict[str, Any]) -> Any:
        """The value, None where the task left none."""
        return context["ti"].xcom_pull(task_ids=self.operator.task_id, key=self.key)


def find_arguments(value: object, seen: set[int] | None = None) -> Iterator[XComArg]:
    """Every XComArg inside ``value``, through containers and nested templated objects (S66)."""
    if isinstance(value, XComArg):
        yield value
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
