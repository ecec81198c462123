"""Daemons with their leases, and blocks of numbers that they reserve."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from roost.models.tables.base import KEY, metadata, partial_index

__all__ = ["id_block", "job"]

job = Table(
    "job",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("host_id", String(200), nullable=False),  # boot and pid namespace: "same host" test
    Column("pid", Integer, nullable=False),
    Column("pid_start", BigInteger, nullable=False),  # tells a reused pid from the same process
    Column("run_dir", Text, nullable=False),
    Column("token", String(64), nullable=False),  # marks what descends from this incarnation
    Column("started_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("detail", Text, nullable=False, server_default="{}"),
    partial_index("ix_job_live", "kind", where="ended_at IS NULL"),
    sqlite_autoincrement=True,  # an id is never given twice
)

id_block = Table(
    "id_block",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("next", BigInteger, nullable=False),
)
