"""Parameters of DAGs and tasks: a default that a run's conf may replace, and what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from roost.exceptions import ParamError
from roost.support.user_settings import conf_overrides_params

if TYPE_CHECKING:
    from roost.dag.model import SerializedDag
    from roost.dag.operator import BaseOperator

__all__ = [
    "DagParam",
    "Param",
    "check_defaults",
    "defaults",
    "merged",
    "param_scopes",
    "run_params",
]


class _NotGiven:
    def __repr__(self) -> str:
        return "no default"


_NOT_GIVEN: Final = _NotGiven()


class Param:
    """One parameter with its default, a description and a JSON schema.

    Args:
        default: used when a run brings no value of its own. Without one, or with None where the
            schema does not take null, each run must bring a value.
        description: what it is for.
        schema: the JSON schema as a dict, instead of ``**keywords``.
        **keywords: of a JSON schema: ``type="integer"``, ``minimum=1``, ``enum=[…]``, ``title=``…
    """

    def __init__(
        self,
        default: Any = _NOT_GIVEN,
        description: str | None = None,
        *,
        schema: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        self.has_default = not isinstance(default, _NotGiven)
        self.value = default if self.has_default else None
        self.description = description
        self.schema: dict[str, Any] = {**(schema or {}), **keywords}

    def with_default(self, value: Any) -> Param:
        """The same with another default."""
        return Param(value, self.description, schema=self.schema)

    @cached_property
    def required(self) -> bool:
        """Whether a run must bring a value."""
        if self.has_default and (self.value is not None or not self.schema):
            return False
        return not self.has_default or not _fits("", None, self.schema)

    def resolve(self, name: str, value: Any) -> Any:
        """``value`` if it is what the schema asks for.

        Raises:
            ParamError: one line with the name, the value and the rule.
        """
        if self.schema:
            # Imported late: only what has a schema pays for the checker.
            from roost.dag.param_check import check

            check(name, value, self.schema)
        return value

    def __repr__(self) -> str:
        return f"Param({self.value!r})"


def _fits(name: str, value: Any, schema: dict[str, Any]) -> bool:
    try:
        Param(schema=schema).resolve(name, value)
    except ParamError:
        return False
    return True


def defaults(params: Mapping[str, Any]) -> dict[str, Any]:
    """Default values of ``params``, whose items may be :class:`Param` or values.

    Those that a run must bring are left out.
    """
    return {
        name: item.value if isinstance(item, Param) else item
        for name, item in params.items()
        if not (isinstance(item, Param) and item.required)
    }


def merged(of_dag: Mapping[str, Any], of_task: Mapping[str, Any]) -> dict[str, Any]:
    """The params that a task sees: its own over its DAG's; a plain value keeps the schema."""
    found = dict(of_dag)
    for name, item in of_task.items():
        above = found.get(name)
        plain = isinstance(above, Param) and not isinstance(item, Param)
        found[name] = above.with_default(item) if plain and isinstance(above, Param) else item
    return found


def check_defaults(params: Mapping[str, Any], *, scheduled: bool) -> None:
    """Refuse a default that breaks its own schema, or a schema that is none.

    Args:
        params: of a DAG, or all that a task sees.
        scheduled: the schedule makes runs, which bring no values.

    Raises:
        ParamError: one line.
    """
    for name, item in params.items():
        if not isinstance(item, Param):
            continue
        if item.schema:
            from roost.dag.param_check import check_schema  # late, as above

            check_schema(name, item.schema)
        if not item.required:
            item.resolve(name, item.value)
        elif scheduled:
            raise ParamError(
                f"param {name!r} has no default, but runs of a schedule bring no value; "
                "give it one, or schedule=None"
            )


def run_params(task: BaseOperator, conf: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` of a task in one run: DAG, then task, then the run's conf.

    Raises:
        ParamError: the conf brings a value that breaks a schema, or none where it must.
    """
    of_dag, of_task = task.dag.params, task.params
    if not of_dag and not of_task:
        return dict(conf) if conf_overrides_params() else {}
    known = merged(of_dag, of_task)
    given = conf if conf_overrides_params() else {}
    values = {**defaults(known), **given}
    for name, item in known.items():
        if not isinstance(item, Param):
            continue
        if name in given:
            item.resolve(name, given[name])
        elif name not in values:
            raise ParamError(f"param {name!r} has no value; give one in the run's conf")
    return values


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


def param_scopes(dag: SerializedDag) -> list[dict[str, Any]]:
    """The params of a stored DAG and of each of its tasks, by name; none that are empty."""
    scopes = [dag.extra.get("params"), *(task.extra.get("param_schemas") for task in dag.tasks)]
    return [scope for scope in scopes if scope]
