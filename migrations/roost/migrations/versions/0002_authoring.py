"""Mapping, clearing, callbacks, backfills, SLAs, deadlines, timetables of the user's own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    """A partial index, said to both dialects."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "backfill",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("from_date", sa.BigInteger(), nullable=False),
        sa.Column("to_date", sa.BigInteger(), nullable=False),
        sa.Column("max_active_runs", sa.Integer(), nullable=False),
        sa.Column("is_reversed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("reprocess", sa.String(length=20), server_default="none", nullable=False),
        sa.Column("conf", sa.Text(), server_default="{}", nullable=False),
        sa.Column("is_paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.CheckConstraint(
            "reprocess IN ('none', 'failed', 'completed')", name=op.f("ck_backfill_reprocess")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_backfill"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "task_usage",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("used", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_used", sa.Integer(), nullable=False),
        sa.Column("shrinking", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "used >= 0 AND (used <= max_used OR shrinking)", name=op.f("ck_task_usage_limit")
        ),
        sa.PrimaryKeyConstraint("dag_id", "task_id", name="pk_task_usage"),
    )
    op.create_table(
        "sla_miss",
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("logical_date", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("email_sent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("notification_sent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "dag_id", "logical_date", name="pk_sla_miss"),
    )
    op.create_table(
        "deadline",
        sa.Column("dag_run_id", _KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("missed_at", sa.BigInteger()),
        sa.Column("met_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(
            ["dag_run_id"],
            ["dag_run.id"],
            name="fk_deadline_dag_run_id_dag_run",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dag_run_id", "position", name="pk_deadline"),
    )
    op.create_index("ix_deadline_due", "deadline", ["due_at"], **_where("missed_at IS NULL"))
    _create_assets()
    op.add_column("xcom", sa.Column("length", sa.Integer()))
    op.add_column(
        "trigger",
        sa.Column("on_timeout", sa.String(length=10), server_default="retry", nullable=False),
    )
    op.add_column("dag", sa.Column("paused_reason", sa.Text()))
    op.add_column("dag", sa.Column("upcoming", sa.Text(), server_default="[]", nullable=False))
    op.add_column(
        "task_instance",
        sa.Column("first_try", sa.SmallInteger(), server_default="0", nullable=False),
    )
    op.add_column("task_instance", sa.Column("map_name", sa.Text()))
    _upgrade_runs()
    _upgrade_dispatches()


def _upgrade_runs() -> None:
    op.add_column("dag_run", sa.Column("wish", sa.String(length=20)))
    op.add_column("dag_run", sa.Column("backfill_id", _KEY))
    op.add_column("dag_run", sa.Column("started_by", sa.String(length=60)))
    op.create_index("ix_dag_run_logical_date", "dag_run", ["dag_id", "logical_date"])
    op.create_index(
        "ix_dag_run_backfill_id",
        "dag_run",
        ["backfill_id", "state"],
        **_where("backfill_id IS NOT NULL"),
    )
    op.drop_index("uq_dag_run_interval", "dag_run")
    op.create_index(
        "uq_dag_run_interval",
        "dag_run",
        ["dag_id", "interval_start"],
        unique=True,
        **_where("run_type IN ('scheduled', 'backfill')"),
    )


def _create_assets() -> None:
    op.create_table(
        "asset_event",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("uri", sa.String(length=250), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("dag_id", sa.String(length=250)),
        sa.Column("run_id", sa.String(length=250)),
        sa.Column("task_id", sa.String(length=250)),
        sa.Column("map_index", sa.Integer(), server_default="-1", nullable=False),
        sa.Column("extra", sa.Text(), server_default="{}", nullable=False),
        sa.Column("settled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_asset_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_asset_event_uri", "asset_event", ["uri", "id"])
    op.create_index("ix_asset_event_inbox", "asset_event", ["id"], **_where("NOT settled"))
    op.create_table(
        "asset_listener",
        sa.Column("uri", sa.String(length=250), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.PrimaryKeyConstraint("uri", "dag_id", name="pk_asset_listener"),
    )
    op.create_index("ix_asset_listener_dag_id", "asset_listener", ["dag_id"])
    op.create_table(
        "asset_pending",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("event_id", _KEY, nullable=False),
        sa.Column("uri", sa.String(length=250), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "event_id", name="pk_asset_pending"),
    )
    op.create_table(
        "asset_use",
        sa.Column("dag_run_id", _KEY, nullable=False),
        sa.Column("event_id", _KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["dag_run_id"],
            ["dag_run.id"],
            name="fk_asset_use_dag_run_id_dag_run",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dag_run_id", "event_id", name="pk_asset_use"),
    )


def _index_waiting() -> None:
    op.create_index(
        "ix_dispatch_waiting",
        "dispatch",
        [sa.text("priority DESC"), "id"],
        **_where("job_id IS NULL AND ended_at IS NULL"),
    )


def _upgrade_dispatches() -> None:
    # SQLite makes the table anew and would forget the order of this index.
    op.drop_index("ix_dispatch_waiting", "dispatch")
    with op.batch_alter_table("dispatch") as batch:
        batch.add_column(sa.Column("callback", sa.Text()))
        batch.add_column(sa.Column("wish", sa.String(length=20)))
        batch.alter_column("ti_id", existing_type=_KEY, nullable=True)
        batch.create_check_constraint(
            op.f("ck_dispatch_task_or_callback"), "(ti_id IS NULL) = (callback IS NOT NULL)"
        )
        batch.create_check_constraint(
            op.f("ck_dispatch_wish"), "wish IN ('clear', 'success', 'failed', 'skipped')"
        )
    _index_waiting()
    op.create_index(
        "ix_dispatch_wish", "dispatch", ["id"], **_where("wish IS NOT NULL AND ended_at IS NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_dispatch_wish", "dispatch")
    op.drop_index("ix_dispatch_waiting", "dispatch")
    op.execute("DELETE FROM dispatch WHERE callback IS NOT NULL")
    with op.batch_alter_table("dispatch") as batch:
        batch.drop_constraint(op.f("ck_dispatch_wish"), type_="check")
        batch.drop_constraint(op.f("ck_dispatch_task_or_callback"), type_="check")
        batch.alter_column("ti_id", existing_type=_KEY, nullable=False)
        batch.drop_column("wish")
        batch.drop_column("callback")
    _index_waiting()
    op.drop_index("uq_dag_run_interval", "dag_run")
    op.create_index(
        "uq_dag_run_interval",
        "dag_run",
        ["dag_id", "interval_start"],
        unique=True,
        **_where("run_type = 'scheduled'"),
    )
    op.drop_index("ix_dag_run_backfill_id", "dag_run")
    op.drop_index("ix_dag_run_logical_date", "dag_run")
    op.drop_column("dag_run", "started_by")
    op.drop_column("dag_run", "backfill_id")
    op.drop_column("dag_run", "wish")
    op.drop_column("task_instance", "map_name")
    op.drop_column("task_instance", "first_try")
    op.drop_column("dag", "upcoming")
    op.drop_column("dag", "paused_reason")
    op.drop_column("trigger", "on_timeout")
    op.drop_column("xcom", "length")
    for table in (
        "asset_use",
        "asset_pending",
        "asset_listener",
        "asset_event",
        "deadline",
        "sla_miss",
        "task_usage",
        "backfill",
    ):
        op.drop_table(table)
