"""Variables: settings that all tasks share (S59-S62). Values are encrypted at rest."""

from __future__ import annotations

from typing import NamedTuple

from roost.exceptions import RoostException
from roost.models.engine import Sql, Tx
from roost.support.crypto import Keyring

__all__ = ["VariableRow", "delete_variable", "get_variable", "list_variables", "set_variable"]

_GET = Sql("SELECT value, is_encrypted FROM variable WHERE key = :key")
_LIST = Sql("SELECT key, value, description, is_encrypted FROM variable ORDER BY key")
_SET = Sql(
    "INSERT INTO variable (key, value, description, is_encrypted) "
    "VALUES (:key, :value, coalesce(:description, ''), {true}) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, is_encrypted = {true}, "
    "description = coalesce(:description, variable.description)"
)
_DELETE = Sql("DELETE FROM variable WHERE key = :key")
_KEY_CHARS = 250


class VariableRow(NamedTuple):
    """A Variable as it is stored; :meth:`plain` reads its value."""

    key: str
    value: str
    description: str
    is_encrypted: bool

    def plain(self, keys: Keyring) -> str:
        """The value.

        Raises:
            DecryptionError: no key fits.
        """
        if not self.is_encrypted:  # written by an older Roost
            return self.value
        return keys.decrypt(self.value, f"Variable {self.key!r}")


def get_variable(tx: Tx, key: str, keys: Keyring) -> str | None:
    """The value stored under ``key``; None: there is none.

    Raises:
        DecryptionError: no key fits.
    """
    row = tx.first(_GET, key=key)
    return None if row is None else VariableRow(key, row.value, "", row.is_encrypted).plain(keys)


def list_variables(tx: Tx) -> list[VariableRow]:
    """Every Variable, by key."""
    return [VariableRow._make(row) for row in tx.all(_LIST)]


def set_variable(
    tx: Tx, key: str, value: str, keys: Keyring, description: str | None = None
) -> None:
    """Create or replace a Variable; a description of None keeps the one there is.

    Raises:
        ConfigError: there is no encryption key.
        RoostException: the key cannot be stored.
    """
    if not 0 < len(key) <= _KEY_CHARS or "\0" in key:
        raise RoostException(f"a Variable's key has 1 to {_KEY_CHARS} characters, not {len(key)}")
    tx.run(_SET, key=key, value=keys.encrypt(value), description=description)


def delete_variable(tx: Tx, key: str) -> int:
    """Delete a Variable; gives how many there were."""
    return tx.run(_DELETE, key=key)
