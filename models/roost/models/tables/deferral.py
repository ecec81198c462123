"""Triggers of deferred tasks, the events that end them, and what is left to do for killed ones."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
)

from roost.models.tables.base import ID, KEY, metadata, partial_index

__all__ = ["external_event", "trigger", "trigger_code", "trigger_event", "trigger_kill"]

_AWAITED = "source = 'roost.triggers.runs:DagRunTrigger' AND fired_at IS NULL"

trigger = Table(
    "trigger",
    metadata,
    Column("id", KEY, primary_key=True),
    # Whose it is; a watcher's is no task's, and the next two are NULL as well (D13).
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE")),
    Column("dag_run_id", KEY),
    Column("dispatch_id", BigInteger),  # the hand-off that deferred
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
    Column("rank", BigInteger, nullable=False, server_default="0"),  # minus the weight: D16
    Column("start", Text),  # start_from_trigger: what its kwargs are rendered with (D12)
    Column("strikes", SmallInteger, nullable=False, server_default="0"),
    Column("trouble", Text),  # how it last blocked or ended its runner
    Column("trouble_at", BigInteger),
    Column("judged_at", BigInteger),  # when it was last struck: whoever repeats that adds nothing
    Column("watcher_hash", String(64)),  # of equal watchers, which share it (D13)
    UniqueConstraint("ti_id"),  # S6: one trigger per deferred task instance
    CheckConstraint("lane IN ('timer', 'external', 'poll')", name="lane"),
    CheckConstraint("lane <> 'timer' OR due_at IS NOT NULL", name="timer_has_due"),
    CheckConstraint(
        "(watcher_hash IS NULL) = (ti_id IS NOT NULL AND dag_run_id IS NOT NULL "
        "AND dispatch_id IS NOT NULL)",
        name="whose",
    ),
    partial_index(
        "uq_trigger_watcher_hash", "watcher_hash", unique=True, where="watcher_hash IS NOT NULL"
    ),
    partial_index("ix_trigger_timer", "due_at", where="lane = 'timer' AND fired_at IS NULL"),
    partial_index(
        "ix_trigger_poll", "job_id", "rank", "id", where="lane = 'poll' AND fired_at IS NULL"
    ),
    partial_index(
        "ix_trigger_timeout", "timeout_at", where="timeout_at IS NOT NULL AND fired_at IS NULL"
    ),
    partial_index(
        "ix_trigger_external_key",
        "external_key",
        where="external_key IS NOT NULL AND fired_at IS NULL",
    ),
    partial_index(  # those that the scheduler fires itself, among any number that wait for events
        "ix_trigger_awaited", "id", where=_AWAITED
    ),
    sqlite_autoincrement=True,  # an id is never given twice
)

trigger_event = Table(
    "trigger_event",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("trigger_id", KEY, ForeignKey("trigger.id", ondelete="CASCADE"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("payload", Text),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("trigger_id"),  # S3: the first event wins
    Column("xcoms", Text),  # of a task that ends in its trigger: XComWrites as JSON (D11)
    CheckConstraint(
        "kind IN ('fired', 'failed', 'timeout', 'end_success', 'end_failed', 'end_skipped')",
        name="kind",
    ),
    sqlite_autoincrement=True,  # an id is never given twice
)

external_event = Table(  # somebody's word, on its way to the triggers that wait for its key
    "external_event",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("external_key", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("sender", String(250), nullable=False),
    Column("nonce", String(64), unique=True),  # of the token that sent it: each is good for one
    Column("token_until", BigInteger),  # the token could be used till then: the row stays so long
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("taken_at", BigInteger),  # it woke somebody
    Column("woken", Integer, nullable=False, server_default="0"),
    partial_index("ix_external_event_open", "external_key", "id", where="taken_at IS NULL"),
    Index("ix_external_event_expires_at", "expires_at"),
    sqlite_autoincrement=True,  # an id is never given twice
)

trigger_code = Table(  # the modules below the DAGs folder that a version of a DAG file imports
    "trigger_code",
    metadata,
    Column("code_hash", String(64), primary_key=True),  # of the dag_source
    Column("files", Text, nullable=False),  # [path, text] by module name, as JSON
)

trigger_kill = Table(  # a user ended the wait: on_kill() is still to be called (D10)
    "trigger_kill",
    metadata,
    Column("id", KEY, primary_key=True, autoincrement=False),  # of the trigger that was
    Column("classpath", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("kwargs", Text, nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("fileloc", Text, nullable=False),
    Column("queue", ID, nullable=False),
    Column("dag_id", ID, nullable=False),
    Column("run_id", ID, nullable=False),
    Column("task_id", ID, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("job_id", KEY),  # the triggerer that kills it
    Column("epoch", Integer, nullable=False),
    Column("dispatch_id", BigInteger, nullable=False),
    Column("start", Text),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),  # runners that had it
    Column("strikes", SmallInteger, nullable=False, server_default="0"),  # those that it ended
    Column("retry_at", BigInteger),  # no runner has it again before
    Index("ix_trigger_kill_job_id", "job_id", "id", "retry_at"),  # all that a look reads
)
