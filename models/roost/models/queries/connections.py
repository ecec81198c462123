"""Connections: how to reach external systems (S46, S47). Password and extra are encrypted."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec

from roost.exceptions import RoostException
from roost.models.engine import Sql, Tx
from roost.support.crypto import Keyring
from roost.support.task_requests import ConnectionRecord

__all__ = [
    "ConnectionRow",
    "add_connection",
    "connection_ids",
    "delete_connections",
    "get_connections",
    "list_connections",
    "pick_connection",
]

_COLUMNS = (
    "id, conn_id, conn_type, host, login, password, schema, port, extra, description, is_encrypted"
)
_GET = Sql(f"SELECT {_COLUMNS} FROM connection WHERE conn_id = :conn_id ORDER BY id")
_LIST = Sql(f"SELECT {_COLUMNS} FROM connection ORDER BY conn_id, id")
_IDS = Sql("SELECT DISTINCT conn_id FROM connection ORDER BY conn_id")
_ADD = Sql(
    "INSERT INTO connection (conn_id, conn_type, host, login, password, schema, port, extra, "
    "description, is_encrypted) VALUES (:conn_id, :conn_type, :host, :login, :password, :schema, "
    ":port, :extra, :description, {true})"
)
_DELETE = Sql("DELETE FROM connection WHERE conn_id = :conn_id")
_ID_CHARS = 250


class ConnectionRow(NamedTuple):
    """A Connection as it is stored; :meth:`plain` reads it."""

    id: int
    conn_id: str
    conn_type: str
    host: str | None
    login: str | None
    password: str | None
    schema: str | None
    port: int | None
    extra: str | None
    description: str
    is_encrypted: bool

    def plain(self, keys: Keyring) -> ConnectionRecord:
        """The connection with its password and its extra.

        Raises:
            DecryptionError: no key fits.
        """
        record = ConnectionRecord(*self[1:-1])
        if self.is_encrypted:
            what = f"Connection {self.conn_id!r}"
            if record.password is not None:
                record.password = keys.decrypt(record.password, what)
            if record.extra is not None:
                record.extra = keys.decrypt(record.extra, what)
        return record


def get_connections(tx: Tx, conn_id: str) -> list[ConnectionRow]:
    """Every connection of that id, in the order of their making; several may share one (S47)."""
    return [ConnectionRow._make(row) for row in tx.all(_GET, conn_id=conn_id)]


def pick_connection(tx: Tx, conn_id: str, keys: Keyring) -> ConnectionRecord | None:
    """One connection of that id, any of them with the same chance, to spread the load (S47).

    Raises:
        DecryptionError: no key fits.
    """
    found = get_connections(tx, conn_id)
    return random.choice(found).plain(keys) if found else None  # noqa: S311


def list_connections(tx: Tx) -> list[ConnectionRow]:
    """Every connection, by id."""
    return [ConnectionRow._make(row) for row in tx.all(_LIST)]


def connection_ids(tx: Tx) -> list[str]:
    """Every id once."""
    return [row.conn_id for row in tx.all(_IDS)]


def add_connection(tx: Tx, record: ConnectionRecord, keys: Keyring) -> None:
    """Store one more connection, whether its id is taken or not.

    Raises:
        ConfigError: there is no encryption key.
        RoostException: the id cannot be stored.
    """
    if not 0 < len(record.conn_id) <= _ID_CHARS:
        raise RoostException(f"a conn_id has 1 to {_ID_CHARS} characters")
    keys.check()  # one without secrets does not begin its life without a key either
    values = msgspec.structs.asdict(record)
    for name in ("password", "extra"):
        if values[name] is not None:
            values[name] = keys.encrypt(values[name])
    values["description"] = record.description or ""
    tx.run(_ADD, **values)


def delete_connections(tx: Tx, conn_id: str) -> int:
    """Delete every connection of that id; gives how many there were."""
    return tx.run(_DELETE, conn_id=conn_id)
