"""The first schema: jobs, DAGs, runs, task instances, dispatches, triggers, events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_POOLS = sa.table("pool", sa.column("pool"), sa.column("slots"), sa.column("description"))


def _where(condition: str) -> dict[str, Any]:
    """A partial index, said to both dialects."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "connection",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("conn_id", sa.String(length=250), nullable=False),
        sa.Column("conn_type", sa.String(length=500), server_default="", nullable=False),
        sa.Column("host", sa.Text()),
        sa.Column("port", sa.Integer()),
        sa.Column("login", sa.Text()),
        sa.Column("password", sa.Text()),
        sa.Column("schema", sa.Text()),
        sa.Column("extra", sa.Text()),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("is_encrypted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_connection"),
    )
    op.create_index("ix_connection_conn_id", "connection", ["conn_id"])
    op.create_table(
        "dag_file",
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.String(length=64), server_default="", nullable=False),
        sa.Column("stamp", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("warnings", sa.Text(), server_default="[]", nullable=False),
        sa.Column("parsed_at", sa.BigInteger(), nullable=False),
        sa.Column("parse_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("fileloc", name="pk_dag_file"),
    )
    op.create_table(
        "dag_source",
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("triggers", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name="pk_dag_source"),
    )
    op.create_table(
        "dag_usage",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("runs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_runs", sa.Integer(), nullable=False),
        sa.Column("shrinking", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "runs >= 0 AND (runs <= max_runs OR shrinking)", name=op.f("ck_dag_usage_limit")
        ),
        sa.PrimaryKeyConstraint("dag_id", name="pk_dag_usage"),
    )
    op.create_table(
        "dag_version",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dag_version"),
        sa.UniqueConstraint("dag_id", "hash", name="uq_dag_version_dag_id_hash"),
    )
    op.create_table(
        "event_log",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=60), nullable=False),
        sa.Column("event", sa.String(length=20), nullable=False),
        sa.Column("dag_run_id", _KEY),
        sa.Column("ti_id", _KEY),
        sa.Column("ti_version", sa.Integer()),
        sa.Column("try_number", sa.SmallInteger()),
        sa.Column("dispatch_id", sa.BigInteger()),
        sa.Column("trigger_id", sa.BigInteger()),
        sa.Column("from_state", sa.String(length=20)),
        sa.Column("to_state", sa.String(length=20)),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_event_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_log_ti_id", "event_log", ["ti_id"])
    op.create_table(
        "id_block",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_id_block"),
    )
    op.create_table(
        "job",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("host_id", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_start", sa.BigInteger(), nullable=False),
        sa.Column("run_dir", sa.Text(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("detail", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_live", "job", ["kind"], **_where("ended_at IS NULL"))
    op.create_table(
        "pool",
        sa.Column("pool", sa.String(length=250), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("used", sa.Integer(), server_default="0", nullable=False),
        sa.Column("shrinking", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("include_deferred", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "used >= 0 AND (slots < 0 OR used <= slots OR shrinking)", name=op.f("ck_pool_limit")
        ),
        sa.PrimaryKeyConstraint("pool", name="pk_pool"),
    )
    op.create_table(
        "variable",
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("is_encrypted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_variable"),
    )
    op.create_table(
        "dag",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("version_id", _KEY, nullable=False),
        sa.Column("is_paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("schedule", sa.Text(), server_default="", nullable=False),
        sa.Column("owners", sa.Text(), server_default="[]", nullable=False),
        sa.Column("tags", sa.Text(), server_default="[]", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("next_run_after", sa.BigInteger()),
        sa.Column("next_interval_start", sa.BigInteger()),
        sa.Column("next_interval_end", sa.BigInteger()),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["dag_version.id"], name="fk_dag_version_id_dag_version"
        ),
        sa.PrimaryKeyConstraint("dag_id", name="pk_dag"),
    )
    op.create_index("ix_dag_next_run_after", "dag", ["next_run_after"])
    op.create_table(
        "dag_run",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("run_type", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("version_id", _KEY, nullable=False),
        sa.Column("logical_date", sa.BigInteger()),
        sa.Column("interval_start", sa.BigInteger()),
        sa.Column("interval_end", sa.BigInteger()),
        sa.Column("run_after", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("start_date", sa.BigInteger()),
        sa.Column("end_date", sa.BigInteger()),
        sa.Column("conf", sa.Text(), server_default="{}", nullable=False),
        sa.Column("job_id", _KEY),
        sa.Column("changed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.CheckConstraint(
            "(end_date IS NULL) = (state IN ('queued', 'running'))",
            name=op.f("ck_dag_run_finished_has_end"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'success', 'failed')", name=op.f("ck_dag_run_state")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["dag_version.id"], name="fk_dag_run_version_id_dag_version"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_dag_run"),
        sa.UniqueConstraint("dag_id", "run_id", name="uq_dag_run_dag_id_run_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_dag_run_unclaimed",
        "dag_run",
        ["id"],
        **_where("end_date IS NULL AND (job_id IS NULL OR changed)"),
    )
    op.create_index("ix_dag_run_unfinished", "dag_run", ["job_id"], **_where("end_date IS NULL"))
    op.create_index(
        "uq_dag_run_interval",
        "dag_run",
        ["dag_id", "interval_start"],
        unique=True,
        **_where("run_type = 'scheduled'"),
    )
    op.create_table(
        "task_instance",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("dag_run_id", _KEY, nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), server_default="-1", nullable=False),
        sa.Column("state", sa.String(length=20), server_default="none", nullable=False),
        sa.Column("prev_state", sa.String(length=20), server_default="none", nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("try_number", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("losses", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("pool", sa.String(length=250), server_default="default_pool", nullable=False),
        sa.Column("pool_slots", sa.Integer(), server_default="1", nullable=False),
        sa.Column("queue", sa.String(length=250), server_default="default", nullable=False),
        sa.Column("priority_weight", sa.Integer(), server_default="1", nullable=False),
        sa.Column("dispatch_id", sa.BigInteger()),
        sa.Column("trigger_id", sa.BigInteger()),
        sa.Column("next_method", sa.Text()),
        sa.Column("next_kwargs", sa.Text()),
        sa.Column("run_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("scheduled_at", sa.BigInteger()),
        sa.Column("queued_at", sa.BigInteger()),
        sa.Column("start_date", sa.BigInteger()),
        sa.Column("end_date", sa.BigInteger()),
        sa.Column("retry_at", sa.BigInteger()),
        sa.Column("hostname", sa.String(length=255)),
        sa.CheckConstraint(
            (
                "state IN ('none', 'scheduled', 'queued', 'running', 'success', "
                "'failed', 'skipped', 'upstream_failed', 'up_for_retry', 'deferred', 'removed')"
            ),
            name=op.f("ck_task_instance_state"),
        ),
        sa.ForeignKeyConstraint(
            ["dag_run_id"],
            ["dag_run.id"],
            name="fk_task_instance_dag_run_id_dag_run",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task_instance"),
        sa.UniqueConstraint(
            "dag_run_id",
            "task_id",
            "map_index",
            name="uq_task_instance_dag_run_id_task_id_map_index",
        ),
        postgresql_with={"fillfactor": 70},
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_task_instance_retry", "task_instance", ["retry_at"], **_where("state = 'up_for_retry'")
    )
    op.create_table(
        "dispatch",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ti_id", _KEY, nullable=False),
        sa.Column("dag_run_id", _KEY, nullable=False),
        sa.Column("try_number", sa.SmallInteger(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", _KEY),
        sa.Column("claimed_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("outcome", sa.Text()),
        sa.Column("settled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "(claimed_at IS NULL) = (job_id IS NULL)", name=op.f("ck_dispatch_claimed_has_owner")
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (outcome IS NULL)", name=op.f("ck_dispatch_ended_has_outcome")
        ),
        sa.CheckConstraint(
            "ended_at IS NOT NULL OR NOT settled", name=op.f("ck_dispatch_settled_is_ended")
        ),
        sa.ForeignKeyConstraint(
            ["ti_id"],
            ["task_instance.id"],
            name="fk_dispatch_ti_id_task_instance",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_dispatch"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_dispatch_held",
        "dispatch",
        ["job_id"],
        **_where("job_id IS NOT NULL AND ended_at IS NULL"),
    )
    op.create_index(
        "ix_dispatch_inbox", "dispatch", ["id"], **_where("ended_at IS NOT NULL AND NOT settled")
    )
    op.create_index("ix_dispatch_ti_id", "dispatch", ["ti_id"])
    op.create_index(
        "ix_dispatch_waiting",
        "dispatch",
        [sa.text("priority DESC"), "id"],
        **_where("job_id IS NULL AND ended_at IS NULL"),
    )
    op.create_index(
        "uq_dispatch_live", "dispatch", ["ti_id"], unique=True, **_where("ended_at IS NULL")
    )
    op.create_table(
        "trigger",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("ti_id", _KEY, nullable=False),
        sa.Column("dag_run_id", _KEY, nullable=False),
        sa.Column("dispatch_id", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.String(length=10), nullable=False),
        sa.Column("classpath", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.Text(), nullable=False),
        sa.Column("next_method", sa.Text()),
        sa.Column("next_kwargs", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("timeout_at", sa.BigInteger()),
        sa.Column("external_key", sa.Text()),
        sa.Column("job_id", _KEY),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fired_at", sa.BigInteger()),
        sa.CheckConstraint(
            "lane <> 'timer' OR due_at IS NOT NULL", name=op.f("ck_trigger_timer_has_due")
        ),
        sa.CheckConstraint("lane IN ('timer', 'external', 'poll')", name=op.f("ck_trigger_lane")),
        sa.ForeignKeyConstraint(
            ["ti_id"],
            ["task_instance.id"],
            name="fk_trigger_ti_id_task_instance",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trigger"),
        sa.UniqueConstraint("ti_id", name="uq_trigger_ti_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_trigger_external_key", "trigger", ["external_key"], **_where("external_key IS NOT NULL")
    )
    op.create_index(
        "ix_trigger_poll",
        "trigger",
        ["job_id", "id"],
        **_where("lane = 'poll' AND fired_at IS NULL"),
    )
    op.create_index(
        "ix_trigger_timeout",
        "trigger",
        ["timeout_at"],
        **_where("timeout_at IS NOT NULL AND fired_at IS NULL"),
    )
    op.create_index(
        "ix_trigger_timer", "trigger", ["due_at"], **_where("lane = 'timer' AND fired_at IS NULL")
    )
    op.create_table(
        "xcom",
        sa.Column("ti_id", _KEY, nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ti_id"], ["task_instance.id"], name="fk_xcom_ti_id_task_instance", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("ti_id", "key", name="pk_xcom"),
    )
    op.create_table(
        "trigger_event",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("trigger_id", _KEY, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("payload", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('fired', 'failed', 'timeout')", name=op.f("ck_trigger_event_kind")
        ),
        sa.ForeignKeyConstraint(
            ["trigger_id"],
            ["trigger.id"],
            name="fk_trigger_event_trigger_id_trigger",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_event"),
        sa.UniqueConstraint("trigger_id", name="uq_trigger_event_trigger_id"),
        sqlite_autoincrement=True,
    )
    op.execute(
        _POOLS.insert().values(
            pool="default_pool", slots=128, description="Tasks that name no pool"
        )
    )


def downgrade() -> None:
    for table in (
        "trigger_event",
        "xcom",
        "trigger",
        "dispatch",
        "task_instance",
        "dag_run",
        "dag",
        "variable",
        "pool",
        "job",
        "id_block",
        "event_log",
        "dag_version",
        "dag_usage",
        "dag_source",
        "dag_file",
        "connection",
    ):
        op.drop_table(table)
