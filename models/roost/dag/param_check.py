"""Values of params against their JSON schemas: in the parser, a task, and on ``dags trigger``.

Never in a daemon: a schema is the user's, and one with a slow pattern takes as long as it likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import fastjsonschema

from roost.exceptions import ParamError

__all__ = ["check", "check_conf", "check_schema"]

_SHOWN = 100  # characters of a value or rule in a message


def check(name: str, value: object, schema: Mapping[str, Any]) -> None:
    """Refuse ``value`` unless it is what ``schema`` asks for.

    Raises:
        ParamError: one line with the name, the value and the rule; or the schema is no schema.
    """
    validate = check_schema(name, schema)
    try:
        validate(value)
    except fastjsonschema.JsonSchemaValueException as error:
        path = str(error.name)
        place = f"{name}{path.removeprefix('data')}"
        rest = error.message.removeprefix(path).strip()
        raise ParamError(
            f"param {name!r} = {_short(value)}: {place} {rest} "
            f"(rule {error.rule}: {_short(error.rule_definition)})"
        ) from None


def check_schema(name: str, schema: Mapping[str, Any]) -> Callable[[object], object]:
    """The checker that ``schema`` makes.

    Raises:
        ParamError: it is no JSON schema.
    """
    try:
        return _compiled(json.dumps(schema))
    except Exception as error:  # the checker raises whatever a wrong keyword makes it raise
        reason = " ".join(str(error).split())
        raise ParamError(f"param {name!r}: its schema is wrong: {reason}") from None


@lru_cache(maxsize=256)
def _compiled(schema: str) -> Callable[[object], object]:
    handlers = dict.fromkeys(("", "http", "https", "ftp", "file"), _refuse)
    compiled: Callable[[object], object] = fastjsonschema.compile(
        json.loads(schema), handlers=handlers, use_default=False
    )
    return compiled


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"$ref to {uri}: a schema must not refer to what lies outside it")


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_conf(
    scopes: Iterable[Mapping[str, Any]], conf: Mapping[str, Any], *, overrides: bool = True
) -> None:
    """Refuse a run's conf that breaks the schema of a param, or lacks one that has no default.

    Keys that are no params are welcome.

    Args:
        scopes: of the DAG, by :func:`roost.dag.param.param_scopes`.
        conf: what the run is to get.
        overrides: ``core.dag_run_conf_overrides_params``.

    Raises:
        ParamError: one line with the name, the value and the rule.
    """
    for described in scopes:
        for name, about in described.items():
            if overrides and name in conf:
                check(name, conf[name], about.get("schema") or {})
            elif about.get("required"):
                raise ParamError(
                    f"param {name!r} has no default; give a value in the run's conf, e.g. "
                    f"--conf '{{\"{name}\": …}}'"
                )
