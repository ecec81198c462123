"""Redis and Valkey for triggers and sensors: how a connection is read, what errors mean."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from roost.dag.connection import Connection
from roost.exceptions import RoostException

__all__ = ["arguments", "is_passing", "refusal", "text_of"]

_KINDS = ("redis", "rediss", "valkey", "valkeys")


def arguments(connection: Connection) -> dict[str, Any]:
    """What a client, of either kind, is made with.

    The number of the database is the schema, or ``db`` in the extra. TLS is used for the types
    ``rediss`` and ``valkeys``, and where the extra has ``ssl``; ``ssl_…`` there is passed on.

    Raises:
        RoostException: it is no connection to such a server.
    """
    kind = connection.conn_type.lower()
    if kind not in _KINDS:
        raise RoostException(
            f"connection {connection.conn_id!r} is of the type {connection.conn_type!r}; "
            "this needs one of the type redis or valkey"
        )
    extra = connection.extra_dejson
    number = connection.schema or extra.get("db") or 0
    try:
        db = int(number)
    except (TypeError, ValueError):
        raise RoostException(
            f"connection {connection.conn_id!r}: the schema is the number of a database, "
            f"not {number!r}"
        ) from None
    return {
        "host": connection.host or "localhost",
        "port": connection.port or 6379,
        "db": db,
        "username": connection.login,
        "password": connection.password,
        "ssl": kind in ("rediss", "valkeys") or extra.get("ssl") in (True, "true"),
        # Answers of one shape with every version, and errors in plain words.
        "protocol": 2,
        "socket_connect_timeout": 10,
        "socket_timeout": 20,
        **{name: value for name, value in extra.items() if name.startswith("ssl_")},
    }


def is_passing(redis: ModuleType, error: BaseException) -> bool:
    """Whether waiting may mend it: the server is not there, or not ready."""
    lasting = (redis.AuthenticationError, redis.exceptions.AuthorizationError)
    if isinstance(error, lasting):
        return False
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)


def refusal(conn_id: str, error: BaseException) -> RoostException:
    """What the server has said no with, in one line."""
    return RoostException(f"connection {conn_id!r}: {' '.join(str(error).split())[:500]}")


def text_of(value: bytes | None) -> str | None:
    """Bytes of a server as text that can be stored."""
    if value is None:
        return None
    return value.decode("utf-8", "backslashreplace").replace("\0", "\\0")
