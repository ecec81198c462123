"""Checks of a task's arguments: each returns the value in one form or names what is wrong."""

from __future__ import annotations

import math
import os
from datetime import datetime, timedelta
from typing import cast, get_args

from roost.dag.model import TriggerRule, WeightRule
from roost.dag.policy import PriorityWeightStrategy, RetryPolicy
from roost.exceptions import DagError
from roost.support.mail import addresses

__all__ = [
    "backoff",
    "duration",
    "mail_addresses",
    "maybe_duration",
    "maybe_moment",
    "per_dag_limit",
    "per_run_limit",
    "retries",
    "retry_policy",
    "text",
    "trigger_rule",
    "unheeded",
    "weight_rule",
    "whole",
]

# Older names of rules (S85, S83).
_RULE_ALIASES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}
_RULES: tuple[str, ...] = get_args(TriggerRule)
_WEIGHTS: tuple[str, ...] = get_args(WeightRule)


def trigger_rule(of: str, value: object) -> TriggerRule:
    """A known trigger rule under its present name (S77)."""
    name = str(getattr(value, "value", value))
    name = _RULE_ALIASES.get(name, name)
    if name not in _RULES:
        raise DagError(f"{of}: unknown trigger_rule {value!r}; one of {', '.join(_RULES)}")
    return cast("TriggerRule", name)


def weight_rule(of: str, value: object) -> tuple[WeightRule, PriorityWeightStrategy | None]:
    """A known weight rule (S43), and the strategy that stands in for it (H24)."""
    if isinstance(value, type) and issubclass(value, PriorityWeightStrategy):
        value = value()
    if isinstance(value, PriorityWeightStrategy):
        return "absolute", value
    name = str(getattr(value, "value", value))
    if name not in _WEIGHTS:
        raise DagError(f"{of}: unknown weight_rule {value!r}; one of {', '.join(_WEIGHTS)}")
    return cast("WeightRule", name), None


def retries(of: str, value: object) -> int:
    """``retries``; where not given, ``core.default_task_retries`` as the daemon passed it on."""
    if value is None:
        value = int(os.environ.get("ROOST__CORE__DEFAULT_TASK_RETRIES") or 0)
    return whole(of, "retries", value, least=0)


def backoff(of: str, value: object) -> float:
    """By what each retry multiplies the delay; 0: it stays as it is (H13)."""
    if isinstance(value, bool):
        return 2.0 if value else 0.0
    if not isinstance(value, int | float) or not (value == 0 or 1 <= value < math.inf):
        raise DagError(
            f"{of}: retry_exponential_backoff must be true, false or a number from 1 up, "
            f"not {value!r}"
        )
    return float(value)


def retry_policy(of: str, value: object) -> RetryPolicy | None:
    """A retry policy or None."""
    if value is not None and not isinstance(value, RetryPolicy):
        raise DagError(f"{of}: retry_policy must be a RetryPolicy, not {value!r}")
    return value


def whole(of: str, name: str, value: object, least: int | None = None) -> int:
    """A whole number, not below ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise DagError(f"{of}: {name} must be a whole number, not {value!r}")
    if least is not None and value < least:
        raise DagError(f"{of}: {name} must be {least} or more, not {value}")
    return value


def per_dag_limit(of: str, value: object, alias: object) -> int | None:
    """``max_active_tis_per_dag``, or ``task_concurrency``, which is its older name (H4)."""
    if value is not None and alias is not None and value != alias:
        raise DagError(f"{of}: give max_active_tis_per_dag or task_concurrency, not both")
    limit = alias if value is None else value
    return None if limit is None else whole(of, "max_active_tis_per_dag", limit, least=1)


def per_run_limit(of: str, value: object) -> int | None:
    """``max_active_tis_per_dagrun`` (H4)."""
    return None if value is None else whole(of, "max_active_tis_per_dagrun", value, least=1)


def unheeded(of: str, **given: object) -> None:
    """Refuse what only executors of Airflow's heed; an empty one asks for nothing (H25)."""
    for name, value in given.items():
        if value:
            raise DagError(
                f"{of}: {name}={value!r} has no effect here; choose workers by queue=…, bound load "
                f"by pool=…, and leave {name} out"
            )


def text(of: str, name: str, value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise DagError(f"{of}: {name} must be a name, not {value!r}")
    return value


def duration(of: str, name: str, value: object) -> timedelta:
    """A timedelta, not negative; a number counts as seconds."""
    given = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    if not isinstance(value, timedelta):
        raise DagError(f"{of}: {name} must be a timedelta or seconds, not {given!r}")
    if value < timedelta(0):
        raise DagError(f"{of}: {name} must not be negative, as {given!r} is")
    return value


def maybe_duration(of: str, name: str, value: object) -> timedelta | None:
    """As :func:`duration`, or None."""
    return None if value is None else duration(of, name, value)


def mail_addresses(of: str, value: object) -> list[str]:
    """Addresses as a list; None is nobody."""
    try:
        return addresses(value)  # type: ignore[arg-type]
    except (TypeError, AttributeError):
        raise DagError(f"{of}: email must be an address or a list of them, not {value!r}") from None


def maybe_moment(of: str, name: str, value: object) -> datetime | None:
    """A datetime or None."""
    if value is not None and not isinstance(value, datetime):
        raise DagError(f"{of}: {name} must be a datetime, not {value!r}")
    return value
