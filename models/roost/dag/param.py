"""Parameters of a DAG: a default that ``--conf`` may replace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DagParam", "Param", "defaults"]


class Param:
    """One parameter with its default, a description and a JSON schema.

    Args:
        default: used when a run brings no value of its own.
        description: what it is for.
        **schema: JSON-schema keywords; kept, not yet checked.
    """

    def __init__(self, default: Any = None, description: str | None = None, **schema: Any) -> None:
        self.value = default
        self.description = description
        self.schema = schema

    def __repr__(self) -> str:
        return f"Param({self.value!r})"


def defaults(params: Mapping[str, Any]) -> dict[str, Any]:
    """Plain default values of ``params``, whose items may be :class:`Param` or values."""
    return {name: item.value if isinstance(item, Param) else item for name, item in params.items()}


class DagParam(str):
    """Stands for ``params[name]`` while the DAG is defined.

    As a whole argument it becomes the value itself; inside a longer string, its template does.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> DagParam:
        made = super().__new__(cls, f"{{{{ params[{name!r}] }}}}")
        made.name = name
        return made

    def resolve(self, context: dict[str, Any]) -> Any:
        """The value in this run."""
        return context["params"][self.name]
