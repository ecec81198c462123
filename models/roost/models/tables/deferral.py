"""Triggers of deferred tasks and the events that end them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from roost.models.tables.base import ID, KEY, metadata

__all__ = ["trigger", "trigger_event"]

trigger = Table(
    "trigger",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE"), nullable=False),
    Column("dag_run_id", KEY, nullable=False),
    Column("dispatch_id", BigInteger, nullable=False),  # the hand-off that deferred
    Column("lane", String(10), nullable=False),
    Column("classpath", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("kwargs", Text, nullable=False),
    Column("next_method", Text),
    Column("next_kwargs", Text, nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("fileloc", Text, nullable=False),
    Column("queue", ID, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("timeout_at", BigInteger),
    Column("on_timeout", String(10), nullable=False, server_default="retry"),
    Column("external_key", Text),
    Column("job_id", KEY),  # the triggerer that runs it
    Column("epoch", Integer, nullable=False, server_default="0"),  # one per claim
    Column("fired_at", BigInteger),  # an event row exists; settled soon
    UniqueConstraint("ti_id"),  # S6: one trigger per deferred task instance
    CheckConstraint("lane IN ('timer', 'external', 'poll')", name="lane"),
    CheckConstraint("lane <> 'timer' OR due_at IS NOT NULL", name="timer_has_due"),
    Index(
        "ix_trigger_timer",
        "due_at",
        sqlite_where=text("lane = 'timer' AND fired_at IS NULL"),
        postgresql_where=text("lane = 'timer' AND fired_at IS NULL"),
    ),
    Index(
        "ix_trigger_poll",
        "job_id",
        "id",
        sqlite_where=text("lane = 'poll' AND fired_at IS NULL"),
        postgresql_where=text("lane = 'poll' AND fired_at IS NULL"),
    ),
    Index(
        "ix_trigger_timeout",
        "timeout_at",
        sqlite_where=text("timeout_at IS NOT NULL AND fired_at IS NULL"),
        postgresql_where=text("timeout_at IS NOT NULL AND fired_at IS NULL"),
    ),
    Index(
        "ix_trigger_external_key",
        "external_key",
        sqlite_where=text("external_key IS NOT NULL"),
        postgresql_where=text("external_key IS NOT NULL"),
    ),
    sqlite_autoincrement=True,  # an id is never given twice
)

trigger_event = Table(
    "trigger_event",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("trigger_id", KEY, ForeignKey("trigger.id", ondelete="CASCADE"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("kind", String(10), nullable=False),
    Column("payload", Text),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("trigger_id"),  # S3: the first event wins
    CheckConstraint("kind IN ('fired', 'failed', 'timeout')", name="kind"),
    sqlite_autoincrement=True,  # an id is never given twice
)
