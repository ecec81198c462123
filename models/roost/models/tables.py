"""The metadata schema. Alembic's migrations must equal it; a test compares them.

Every moment is a BIGINT of microseconds since the epoch, UTC. The invariants of
design.md section 4 rule 4 stand here as partial unique indexes and CHECKs, so that the database
refuses the bug first (S1, S3, S8, S9, S12 of reliability.md section 3).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from roost.models.states import RunState, State

__all__ = ["metadata"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = String(250)
# SQLite numbers rows by itself only for a column typed INTEGER.
KEY = BigInteger().with_variant(Integer, "sqlite")


def _one_of(column: str, values: type[State] | type[RunState]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


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
    Index(
        "ix_job_live",
        "kind",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    sqlite_autoincrement=True,  # an id is never given twice
)

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
    Column("is_active", Boolean, nullable=False),  # its file still defines it
    Column("schedule", Text, nullable=False, server_default=""),
    Column("owners", Text, nullable=False, server_default="[]"),
    Column("tags", Text, nullable=False, server_default="[]"),
    Column("description", Text, nullable=False, server_default=""),
    Column("next_run_after", BigInteger),  # when the next scheduled run is due; NULL: none
    Column("next_interval_start", BigInteger),
    Column("next_interval_end", BigInteger),
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
    UniqueConstraint("dag_id", "run_id"),
    _one_of("state", RunState),
    CheckConstraint(
        "(end_date IS NULL) = (state IN ('queued', 'running'))", name="finished_has_end"
    ),
    Index(
        "uq_dag_run_interval",
        "dag_id",
        "interval_start",
        unique=True,
        sqlite_where=text("run_type = 'scheduled'"),
        postgresql_where=text("run_type = 'scheduled'"),
    ),
    Index(  # a scheduler's next runs to take, or to read again
        "ix_dag_run_unclaimed",
        "id",
        sqlite_where=text("end_date IS NULL AND (job_id IS NULL OR changed)"),
        postgresql_where=text("end_date IS NULL AND (job_id IS NULL OR changed)"),
    ),
    Index(
        "ix_dag_run_unfinished",
        "job_id",
        sqlite_where=text("end_date IS NULL"),
        postgresql_where=text("end_date IS NULL"),
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
    UniqueConstraint("dag_run_id", "task_id", "map_index"),
    _one_of("state", State),
    Index(
        "ix_task_instance_retry",
        "retry_at",
        sqlite_where=text("state = 'up_for_retry'"),
        postgresql_where=text("state = 'up_for_retry'"),
    ),
    postgresql_with={"fillfactor": 70},
    sqlite_autoincrement=True,  # an id is never given twice
)

dispatch = Table(
    "dispatch",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE"), nullable=False),
    Column("dag_run_id", KEY, nullable=False),
    Column("try_number", SmallInteger, nullable=False),
    Column("queue", ID, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("job_id", KEY),  # the worker that claimed it
    Column("claimed_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("outcome", Text),  # roost.support.wire.Outcome as JSON
    Column("settled", Boolean, nullable=False, server_default=false()),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended_has_outcome"),
    CheckConstraint("(claimed_at IS NULL) = (job_id IS NULL)", name="claimed_has_owner"),
    CheckConstraint("ended_at IS NOT NULL OR NOT settled", name="settled_is_ended"),
    Index(  # S1: one live dispatch per task instance
        "uq_dispatch_live",
        "ti_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "ix_dispatch_waiting",
        text("priority DESC"),
        "id",
        sqlite_where=text("job_id IS NULL AND ended_at IS NULL"),
        postgresql_where=text("job_id IS NULL AND ended_at IS NULL"),
    ),
    Index(
        "ix_dispatch_held",
        "job_id",
        sqlite_where=text("job_id IS NOT NULL AND ended_at IS NULL"),
        postgresql_where=text("job_id IS NOT NULL AND ended_at IS NULL"),
    ),
    Index(
        "ix_dispatch_inbox",
        "id",
        sqlite_where=text("ended_at IS NOT NULL AND NOT settled"),
        postgresql_where=text("ended_at IS NOT NULL AND NOT settled"),
    ),
    Index("ix_dispatch_ti_id", "ti_id"),
    postgresql_with={"fillfactor": 70},
)

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
    Column("external_key", Text),
    Column("job_id", KEY),  # the triggerer that runs it
    Column("epoch", Integer, nullable=False, server_default="0"),  # one per claim (rule 3)
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

pool = Table(
    "pool",
    metadata,
    Column("pool", ID, primary_key=True),
    Column("slots", Integer, nullable=False),  # -1: without limit (S40)
    Column("used", Integer, nullable=False, server_default="0"),
    Column("shrinking", Boolean, nullable=False, server_default=false()),
    Column("include_deferred", Boolean, nullable=False, server_default=false()),
    Column("description", Text, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("used >= 0 AND (slots < 0 OR used <= slots OR shrinking)", name="limit"),
)

xcom = Table(
    "xcom",
    metadata,
    Column("ti_id", KEY, ForeignKey("task_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("value", Text, nullable=False),
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

id_block = Table(
    "id_block",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("next", BigInteger, nullable=False),
)
