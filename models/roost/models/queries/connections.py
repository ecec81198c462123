"""Connections: how to reach external systems (S46, S47)."""

from __future__ import annotations

from roost.models.engine import Sql, Tx
from roost.support.wire import ConnectionRecord

__all__ = ["get_connections"]

_GET = Sql(
    "SELECT conn_id, conn_type, host, login, password, schema, port, extra, description "
    "FROM connection WHERE conn_id = :conn_id ORDER BY id"
)


def get_connections(tx: Tx, conn_id: str) -> list[ConnectionRecord]:
    """Every connection of that id; several may share one (S47)."""
    return [ConnectionRecord(*row) for row in tx.all(_GET, conn_id=conn_id)]
