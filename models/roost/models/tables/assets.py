"""Events of assets, who listens, and which run an event went into (H16)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    false,
)

from roost.models.tables.base import ID, KEY, metadata, partial_index

__all__ = ["asset_event", "asset_listener", "asset_pending", "asset_use", "asset_watcher"]

asset_event = Table(
    "asset_event",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("uri", ID, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("dag_id", ID),  # whose task made it; NULL: somebody by hand
    Column("run_id", ID),
    Column("task_id", ID),
    Column("map_index", Integer, nullable=False, server_default="-1"),
    Column("extra", Text, nullable=False, server_default="{}"),
    Column("settled", Boolean, nullable=False, server_default=false()),
    Column("watcher", ID),  # which watcher saw it (D13)
    Column("ref", Text),  # what names it for good, so that it is stored once
    Index("ix_asset_event_uri", "uri", "id"),
    Index("uq_asset_event_ref", "ref", "uri", unique=True),
    partial_index("ix_asset_event_inbox", "id", where="NOT settled"),
    sqlite_autoincrement=True,  # an id is never given twice
)

asset_listener = Table(
    "asset_listener",
    metadata,
    Column("uri", ID, primary_key=True),
    Column("dag_id", ID, primary_key=True),
    Index("ix_asset_listener_dag_id", "dag_id"),
)

asset_pending = Table(  # events that no run of the DAG has used yet
    "asset_pending",
    metadata,
    Column("dag_id", ID, primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Column("uri", ID, nullable=False),
    Index("ix_asset_pending_event_id", "event_id"),
)

asset_watcher = Table(  # what DAGs ask to be watched, paused or not
    "asset_watcher",
    metadata,
    Column("dag_id", ID, primary_key=True),
    Column("uri", ID, primary_key=True),
    Column("name", ID, primary_key=True),
    Column("hash", String(64), nullable=False),  # equal ones share a trigger
    Column("classpath", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("kwargs", Text, nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("fileloc", Text, nullable=False),
    Column("queue", ID, nullable=False),
    Index("ix_asset_watcher_hash", "hash"),
)

asset_use = Table(
    "asset_use",
    metadata,
    Column("dag_run_id", KEY, ForeignKey("dag_run.id", ondelete="CASCADE"), primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Index("ix_asset_use_event_id", "event_id"),
)
