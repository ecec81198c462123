"""Runs, task instances, their dispatches, and the log of every move."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from roost.models.states import RunState, State
from roost.models.tables.base import ID, KEY, metadata, one_of, partial_index

__all__ = ["dag_run", "dispatch", "event_log", "task_instance"]

dag_run = Table(
    "dag_run",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("dag_id", ID, nullable=False),
    Column("run_id", ID, nullable=False),
    Column("run_type", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("version_id", KEY, ForeignKey("dag_version.id"), nullable=False),
    Column("logical_date", BigInteger),
    Column("interval_start", BigInteger),
    Column("interval_end", BigInteger),
    Column("run_after", BigInteger, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("start_date", BigInteger),
    Column("end_date", BigInteger),
    Column("conf", Text, nullable=False, server_default="{}"),
    Column("job_id", KEY),  # the scheduler that decides this run
    Column("changed", Boolean, nullable=False, server_default=false()),  # others edited it
    Column("note", Text),
    Column("wish", String(20)),  # how a user wants it to end, once nothing of it runs any more
    Column("backfill_id", KEY),
    Column("started_by", String(60)),  # the task instance and its try, where a task did
    UniqueConstraint("dag_id", "run_id"),
    one_of("state", RunState),
    CheckConstraint(
        "(end_date IS NULL) = (state IN ('queued', 'running'))", name="finished_has_end"
    ),
    partial_index(
        "uq_dag_run_interval",
        "dag_id",
        "interval_start",
        unique=True,
        where="run_type IN ('scheduled', 'backfill')",
    ),
    partial_index(  # a scheduler's next runs to take, or to read again
        "ix_dag_run_unclaimed", "id", where="end_date IS NULL AND (job_id IS NULL OR changed)"
    ),
    partial_index("ix_dag_run_unfinished", "job_id", where="end_date IS NULL"),
    Index("ix_dag_run_logical_date", "dag_id", "logical_date"),
    partial_index(
        "ix_dag_run_backfill_id", "backfill_id", "state", where="backfill_id IS NOT NULL"
    ),
    sqlite_autoincrement=True,  # an id is never given twice
)

task_instance = Table(
    "task_instance",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("dag_run_id", KEY, ForeignKey("dag_run.id", ondelete="CASCADE"), nullable=False),
    Column("task_id", ID, nullable=False),
    Column("map_index", Integer, nullable=False, server_default="-1"),
    Column("state", String(20), nullable=False, server_default="none"),
    Column("prev_state", String(20), nullable=False, server_default="none"),
    Column("version", Integer, nullable=False, server_default="0"),  # moves so far, gap-free (S4)
    Column("try_number", SmallInteger, nullable=False, server_default="0"),
    Column("first_try", SmallInteger, nullable=False, server_default="0"),  # tries before a clear
    Column("losses", SmallInteger, nullable=False, server_default="0"),  # infrastructure budget
    Column("pool", ID, nullable=False, server_default="default_pool"),
    Column("pool_slots", Integer, nullable=False, server_default="1"),
    Column("queue", ID, nullable=False, server_default="default"),
    Column("priority_weight", Integer, nullable=False, server_default="1"),
    Column("dispatch_id", BigInteger),  # of the latest hand-off
    Column("trigger_id", BigInteger),
    Column("next_method", Text),
    Column("next_kwargs", Text),
    Column("run_us", BigInteger, nullable=False, server_default="0"),  # of this try (D7)
    Column("scheduled_at", BigInteger),
    Column("queued_at", BigInteger),
    Column("start_date", BigInteger),
    Column("end_date", BigInteger),
    Column("retry_at", BigInteger),
    Column("hostname", String(255)),
    Column("map_name", Text),  # what its map_index_template calls an instance
    UniqueConstraint("dag_run_id", "task_id", "map_index"),
    one_of("state", State),
    partial_index("ix_task_instance_retry", "retry_at", where="state = 'up_for_retry'"),
    postgresql_with={"fillfactor": 70},
    sqlite_autoincrement=True,  # an id is never given twice
)

dispatch = Table(
    "dispatch",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    # NULL: it runs a callback, not a task instance.
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE")),
    Column("dag_run_id", KEY, nullable=False),
    Column("try_number", SmallInteger, nullable=False),
    Column("queue", ID, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("callback", Text),  # roost.support.wire.CallbackSpec as JSON
    Column("wish", String(20)),  # what a user wants of it instead of its outcome
    Column("created_at", BigInteger, nullable=False),
    Column("job_id", KEY),  # the worker that claimed it
    Column("claimed_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("outcome", Text),  # roost.support.wire.Outcome as JSON
    Column("settled", Boolean, nullable=False, server_default=false()),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended_has_outcome"),
    CheckConstraint("(claimed_at IS NULL) = (job_id IS NULL)", name="claimed_has_owner"),
    CheckConstraint("ended_at IS NOT NULL OR NOT settled", name="settled_is_ended"),
    CheckConstraint("(ti_id IS NULL) = (callback IS NOT NULL)", name="task_or_callback"),
    CheckConstraint("wish IN ('clear', 'success', 'failed', 'skipped')", name="wish"),
    partial_index(  # S1: one live dispatch per task instance
        "uq_dispatch_live", "ti_id", unique=True, where="ended_at IS NULL"
    ),
    partial_index(
        "ix_dispatch_waiting",
        text("priority DESC"),
        "id",
        where="job_id IS NULL AND ended_at IS NULL",
    ),
    partial_index("ix_dispatch_held", "job_id", where="job_id IS NOT NULL AND ended_at IS NULL"),
    partial_index("ix_dispatch_inbox", "id", where="ended_at IS NOT NULL AND NOT settled"),
    partial_index(  # a scheduler looks here for what users want
        "ix_dispatch_wish", "id", where="wish IS NOT NULL AND ended_at IS NULL"
    ),
    Index("ix_dispatch_ti_id", "ti_id"),
    postgresql_with={"fillfactor": 70},
)

event_log = Table(
    "event_log",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(60), nullable=False),
    Column("event", String(20), nullable=False),
    Column("dag_run_id", KEY),
    Column("ti_id", KEY),
    Column("ti_version", Integer),
    Column("try_number", SmallInteger),
    Column("dispatch_id", BigInteger),
    Column("trigger_id", BigInteger),
    Column("from_state", String(20)),
    Column("to_state", String(20)),
    Column("reason", Text),
    Index("ix_event_log_ti_id", "ti_id"),
    sqlite_autoincrement=True,  # an id is never given twice
)
