"""Variables: settings that all tasks share (S59-S62)."""

from __future__ import annotations

from roost.models.engine import Sql, Tx

__all__ = ["delete_variable", "get_variable", "set_variable"]

_GET = Sql("SELECT value FROM variable WHERE key = :key")
_SET = Sql(
    "INSERT INTO variable (key, value, description) VALUES (:key, :value, :description) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, description = excluded.description"
)
_SET_VALUE = Sql(
    "INSERT INTO variable (key, value) VALUES (:key, :value) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_DELETE = Sql("DELETE FROM variable WHERE key = :key")


def get_variable(tx: Tx, key: str) -> str | None:
    """The value stored under ``key``; None: there is none."""
    value = tx.scalar(_GET, key=key)
    return None if value is None else str(value)


def set_variable(tx: Tx, key: str, value: str, description: str | None = None) -> None:
    """Create or replace a Variable; a description of None keeps the one there is."""
    if description is None:
        tx.run(_SET_VALUE, key=key, value=value)
    else:
        tx.run(_SET, key=key, value=value, description=description)


def delete_variable(tx: Tx, key: str) -> int:
    """Delete a Variable; gives how many there were."""
    return tx.run(_DELETE, key=key)
