"""Limits in time and what became of them: SLA misses and deadlines."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    false,
    text,
)

from roost.models.tables.base import ID, KEY, metadata

__all__ = ["deadline", "sla_miss"]

sla_miss = Table(  # S101
    "sla_miss",
    metadata,
    Column("task_id", ID, primary_key=True),
    Column("dag_id", ID, primary_key=True),
    Column("logical_date", BigInteger, primary_key=True),
    Column("timestamp", BigInteger, nullable=False),
    Column("email_sent", Boolean, nullable=False, server_default=false()),
    Column("notification_sent", Boolean, nullable=False, server_default=false()),
)

deadline = Table(  # H22
    "deadline",
    metadata,
    Column("dag_run_id", KEY, ForeignKey("dag_run.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),  # in the DAG's list of deadlines
    Column("due_at", BigInteger, nullable=False),
    Column("missed_at", BigInteger),
    Column("met_at", BigInteger),  # the run ended in time
    Index(
        "ix_deadline_due",
        "due_at",
        sqlite_where=text("missed_at IS NULL"),
        postgresql_where=text("missed_at IS NULL"),
    ),
)
