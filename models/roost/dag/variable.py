"""Variables: settings shared by all DAGs (S59-S63)."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any, Final

from roost.dag import environ, runtime
from roost.exceptions import VariableNotFound
from roost.support import masking
from roost.support.task_requests import VariableDelete, VariableGet, VariableSet

__all__ = ["Variable"]

log = logging.getLogger("roost.task")


class _NotGiven:
    """Marks a default that was not given: None is a default of its own (S61)."""


_NOT_GIVEN: Final = _NotGiven()


class Variable:
    """Read and write Variables. ``ROOST_VAR_<KEY>`` in the environment wins over the database."""

    @staticmethod
    def get(
        key: str,
        default_var: Any = _NOT_GIVEN,
        deserialize_json: bool = False,
        *,
        default: Any = _NOT_GIVEN,
    ) -> Any:
        """The value of ``key``.

        Args:
            key: its name.
            default_var: returned as it is when there is no such Variable; None counts.
            deserialize_json: parse the value as JSON.
            default: the same as ``default_var``.

        Raises:
            VariableNotFound: there is none and no default (a KeyError, S61).
            ValueError: ``deserialize_json`` and the value is not JSON.
            RoostException: it is not in the environment, there is no default, and no task or
                trigger is running that could ask the database.
        """
        fallback = default if isinstance(default_var, _NotGiven) else default_var
        value = environ.lookup("VAR", key)
        if value is None and _is_to_be_asked(fallback):
            value = runtime.ask(VariableGet(key), f"Variable {key!r}").text
        return _found(key, value, fallback, deserialize_json)

    @staticmethod
    async def get_async(
        key: str, default: Any = _NOT_GIVEN, *, deserialize_json: bool = False
    ) -> Any:
        """The same for the code of triggers, which must not block: ``await`` it."""
        value = environ.lookup("VAR", key)
        if value is None and _is_to_be_asked(default):
            value = (await runtime.ask_async(VariableGet(key), f"Variable {key!r}")).text
        return _found(key, value, default, deserialize_json)

    @staticmethod
    def set(
        key: str, value: Any, description: str | None = None, serialize_json: bool = False
    ) -> None:
        """Create or replace ``key``; ``value`` is kept as text, or as JSON on demand."""
        text = json.dumps(value) if serialize_json else str(value)
        if environ.lookup("VAR", key) is not None:
            log.warning(
                "Variable %r is set in the database, but the environment has it too and is read "
                "first: unset ROOST_VAR_%s (or AIRFLOW_VAR_%s) where the worker starts",
                key,
                key.upper(),
                key.upper(),
            )
        _mask(key, text)
        runtime.ask(VariableSet(key, text, description), f"Variable {key!r}")

    @staticmethod
    def delete(key: str) -> int:
        """Delete ``key``; the number of Variables deleted, 0 or 1."""
        return runtime.ask(VariableDelete(key), f"Variable {key!r}").count


def _is_to_be_asked(fallback: Any) -> bool:
    """Whether to ask the supervisor; where there is none, a default stands for it."""
    return runtime.has_supervisor() or isinstance(fallback, _NotGiven)


def _found(key: str, value: str | None, fallback: Any, deserialize_json: bool) -> Any:
    if value is None:
        if isinstance(fallback, _NotGiven):
            raise VariableNotFound(
                f"Variable {key!r} does not exist: set ROOST_VAR_{key.upper()} where worker "
                f"and triggerer start, `roost variables set {key} VALUE`, or give default_var"
            )
        return fallback
    _mask(key, value)
    return parse(key, value) if deserialize_json else value


def _mask(key: str, value: str) -> None:
    """Hide a sensitive Variable in what this process logs, or what is sensitive in its JSON."""
    if masking.is_sensitive(key):
        masking.register(value)
    if value[:1] in ("{", "["):
        with suppress(ValueError):
            masking.mask_secret(json.loads(value), key)


def parse(key: str, value: str) -> Any:
    """The JSON in Variable ``key``."""
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"Variable {key!r} is not JSON: {error}") from None
