"""Variables and Connections from the environment, which is looked at first (S48)."""

from __future__ import annotations

import os

__all__ = ["lookup"]


def lookup(kind: str, name: str) -> str | None:
    """The value of ``ROOST_<kind>_<NAME>``, else of ``AIRFLOW_<kind>_<NAME>``.

    Args:
        kind: ``VAR`` or ``CONN``.
        name: key or conn_id; looked up in upper case.
    """
    suffix = f"_{kind}_{name.upper()}"
    value = os.environ.get("ROOST" + suffix)
    return os.environ.get("AIRFLOW" + suffix) if value is None else value
