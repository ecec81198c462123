"""Pools, XComs, Variables and Connections."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    false,
)

from roost.models.tables.base import ID, KEY, metadata

__all__ = ["connection", "pool", "variable", "xcom"]

pool = Table(
    "pool",
    metadata,
    Column("pool", ID, primary_key=True),
    Column("slots", Integer, nullable=False),  # -1: without limit (S40)
    Column("used", BigInteger, nullable=False, server_default="0"),  # hundredths of slots
    Column("shrinking", Boolean, nullable=False, server_default=false()),
    Column("description", Text, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False, server_default="0"),
    # How much of its slots a deferred task holds: 0 not at all, 100 wholly (H5).
    Column("deferred_percent", Integer, nullable=False, server_default="0"),
    CheckConstraint(
        "used >= 0 AND (slots < 0 OR used <= CAST(slots AS bigint) * 100 OR shrinking)",
        name="limit",
    ),
    CheckConstraint("deferred_percent BETWEEN 0 AND 100", name="deferred_percent"),
)

xcom = Table(
    "xcom",
    metadata,
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("value", Text, nullable=False),
    Column("length", Integer),  # of a list or dict: how many instances map over it (H17)
    Column("created_at", BigInteger, nullable=False),
)

variable = Table(
    "variable",
    metadata,
    Column("key", ID, primary_key=True),
    Column("value", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("is_encrypted", Boolean, nullable=False, server_default=false()),
)

connection = Table(
    "connection",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("conn_id", ID, nullable=False, index=True),  # not unique (S47)
    Column("conn_type", String(500), nullable=False, server_default=""),
    Column("host", Text),
    Column("port", Integer),
    Column("login", Text),
    Column("password", Text),
    Column("schema", Text),
    Column("extra", Text),
    Column("description", Text, nullable=False, server_default=""),
    Column("is_encrypted", Boolean, nullable=False, server_default=false()),
)
