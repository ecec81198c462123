"""Limits in time and what became of them: SLA misses and deadlines."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    Table,
    false,
)

from roost.models.tables.base import ID, KEY, metadata, partial_index

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
    partial_index("ix_deadline_due", "due_at", where="missed_at IS NULL"),
)
