"""DAG files, the versions of their DAGs, and what is scheduled of them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from roost.models.tables.base import ID, KEY, metadata

__all__ = ["backfill", "dag", "dag_file", "dag_source", "dag_usage", "dag_version", "task_usage"]

dag_source = Table(
    "dag_source",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("fileloc", Text, nullable=False),  # relative to the DAGs folder
    Column("source", Text, nullable=False),
    Column("triggers", Text, nullable=False, server_default="[]"),  # registry: module:qualname
    Column("created_at", BigInteger, nullable=False),
)

dag_file = Table(
    "dag_file",
    metadata,
    Column("fileloc", Text, primary_key=True),
    Column("code_hash", String(64), nullable=False, server_default=""),
    Column("stamp", Text, nullable=False, server_default=""),  # size and mtime, with the helpers'
    Column("error", Text),
    Column("warnings", Text, nullable=False, server_default="[]"),
    Column("parsed_at", BigInteger, nullable=False),
    Column("parse_us", BigInteger, nullable=False, server_default="0"),
)

dag_version = Table(
    "dag_version",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("dag_id", ID, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("fileloc", Text, nullable=False),
    Column("data", Text, nullable=False),  # roost.dag.model.SerializedDag as JSON
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("dag_id", "hash"),
)

dag = Table(
    "dag",
    metadata,
    Column("dag_id", ID, primary_key=True),
    Column("fileloc", Text, nullable=False),
    Column("version_id", KEY, ForeignKey("dag_version.id"), nullable=False),
    Column("is_paused", Boolean, nullable=False, server_default=false()),
    Column("paused_reason", Text),  # where no user paused it (H12)
    Column("is_active", Boolean, nullable=False),  # its file still defines it
    Column("schedule", Text, nullable=False, server_default=""),
    Column("owners", Text, nullable=False, server_default="[]"),
    Column("tags", Text, nullable=False, server_default="[]"),
    Column("description", Text, nullable=False, server_default=""),
    Column("next_run_after", BigInteger),  # when the next scheduled run is due; NULL: none
    Column("next_interval_start", BigInteger),
    Column("next_interval_end", BigInteger),
    # What a timetable of the user's own said comes next: a parser computes it, never a daemon.
    Column("upcoming", Text, nullable=False, server_default="[]"),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_dag_next_run_after", "next_run_after"),
)

dag_usage = Table(
    "dag_usage",
    metadata,
    Column("dag_id", ID, primary_key=True),
    Column("runs", Integer, nullable=False, server_default="0"),
    Column("max_runs", Integer, nullable=False),
    # Set while a lowered limit is still exceeded by runs that started under the old one.
    Column("shrinking", Boolean, nullable=False, server_default=false()),
    CheckConstraint("runs >= 0 AND (runs <= max_runs OR shrinking)", name="limit"),
)

task_usage = Table(  # of tasks with max_active_tis_per_dag only
    "task_usage",
    metadata,
    Column("dag_id", ID, primary_key=True),
    Column("task_id", ID, primary_key=True),
    Column("used", Integer, nullable=False, server_default="0"),
    Column("max_used", Integer, nullable=False),
    # Set while a lowered limit is still exceeded by what started under the old one.
    Column("shrinking", Boolean, nullable=False, server_default=false()),
    CheckConstraint("used >= 0 AND (used <= max_used OR shrinking)", name="limit"),
)

backfill = Table(
    "backfill",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("dag_id", ID, nullable=False),
    Column("from_date", BigInteger, nullable=False),
    Column("to_date", BigInteger, nullable=False),
    Column("max_active_runs", Integer, nullable=False),
    Column("is_reversed", Boolean, nullable=False, server_default=false()),
    Column("reprocess", String(20), nullable=False, server_default="none"),
    Column("conf", Text, nullable=False, server_default="{}"),
    Column("is_paused", Boolean, nullable=False, server_default=false()),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    CheckConstraint("reprocess IN ('none', 'failed', 'completed')", name="reprocess"),
    sqlite_autoincrement=True,  # an id is never given twice
)
