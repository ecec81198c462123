"""Variables and Connections from the environment, which is looked at first (S48)."""

from __future__ import annotations

import os

__all__ = ["default_deferrable", "lookup"]

_NO = ("false", "no", "off", "0")


def default_deferrable() -> bool:
    """``core.default_deferrable`` as the process that started this one passed it on (D24)."""
    return os.environ.get("ROOST__CORE__DEFAULT_DEFERRABLE", "true").lower() not in _NO


def lookup(kind: str, name: str) -> str | None:
    """The value of ``ROOST_<kind>_<NAME>``, else of ``AIRFLOW_<kind>_<NAME>``.

    Args:
        kind: ``VAR`` or ``CONN``.
        name: key or conn_id; looked up in upper case.
    """
    suffix = f"_{kind}_{name.upper()}"
    value = os.environ.get("ROOST" + suffix)
    return os.environ.get("AIRFLOW" + suffix) if value is None else value
