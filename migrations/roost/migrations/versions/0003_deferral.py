"""Events from outside, ends without a worker, kills, strikes, helper modules of triggers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KIND = "ck_trigger_event_kind"
_KINDS = "'fired', 'failed', 'timeout'"
_ENDS = "'end_success', 'end_failed', 'end_skipped'"
_POLL = "lane = 'poll' AND fired_at IS NULL"
_WITH_KEY = "external_key IS NOT NULL"
_TASKS = {"ti_id": _KEY, "dag_run_id": _KEY, "dispatch_id": sa.BigInteger()}
_WHOSE = (
    "(watcher_hash IS NULL) = (ti_id IS NOT NULL AND dag_run_id IS NOT NULL "
    "AND dispatch_id IS NOT NULL)"
)
_AWAITED = "source = 'roost.triggers.runs:DagRunTrigger' AND fired_at IS NULL"


def _where(condition: str) -> dict[str, Any]:
    """A partial index, said to both dialects."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _as_written() -> tuple[sa.Column[Any], ...]:
    """What SQLite gives back in other words than it was given: a default that is empty."""
    return (sa.Column("description", sa.Text(), server_default="", nullable=False),)


def upgrade() -> None:
    _upgrade_triggers()
    with op.batch_alter_table(
        "trigger_event", table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        batch.add_column(sa.Column("xcoms", sa.Text()))
        batch.alter_column("kind", existing_type=sa.String(10), type_=sa.String(20))
        batch.drop_constraint(op.f(_KIND), type_="check")
        batch.create_check_constraint(op.f(_KIND), f"kind IN ({_KINDS}, {_ENDS})")
    _create_external_events()
    op.create_table(
        "trigger_code",
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name="pk_trigger_code"),
    )
    _create_kills()
    _create_watchers()
    _upgrade_pools()


def _upgrade_pools() -> None:
    """Count in hundredths of slots: a deferred task may hold a part of its own."""
    with op.batch_alter_table("pool", reflect_args=_as_written()) as batch:
        batch.drop_constraint(op.f("ck_pool_limit"), type_="check")
        batch.alter_column(
            "used",
            existing_type=sa.Integer(),
            type_=sa.BigInteger(),
            existing_server_default="0",
            server_default="0",
        )
        batch.add_column(
            sa.Column("deferred_percent", sa.Integer(), server_default="0", nullable=False)
        )
    op.execute("UPDATE pool SET used = used * 100")
    op.execute("UPDATE pool SET deferred_percent = 100 WHERE include_deferred")
    with op.batch_alter_table("pool", reflect_args=_as_written()) as batch:
        batch.create_check_constraint(
            op.f("ck_pool_limit"),
            "used >= 0 AND (slots < 0 OR used <= CAST(slots AS bigint) * 100 OR shrinking)",
        )
        batch.create_check_constraint(
            op.f("ck_pool_deferred_percent"), "deferred_percent BETWEEN 0 AND 100"
        )
        batch.drop_column("include_deferred")


def _downgrade_pools() -> None:
    with op.batch_alter_table("pool", reflect_args=_as_written()) as batch:
        batch.drop_constraint(op.f("ck_pool_deferred_percent"), type_="check")
        batch.drop_constraint(op.f("ck_pool_limit"), type_="check")
        batch.add_column(
            sa.Column("include_deferred", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    # A part of a slot counts as a whole one; the scheduler counts anew when it starts.
    op.execute("UPDATE pool SET used = (used + 99) / 100")
    op.execute("UPDATE pool SET include_deferred = (deferred_percent > 0)")
    with op.batch_alter_table("pool", reflect_args=_as_written()) as batch:
        batch.alter_column(
            "used",
            existing_type=sa.BigInteger(),
            type_=sa.Integer(),
            existing_server_default="0",
            server_default="0",
        )
        batch.create_check_constraint(
            op.f("ck_pool_limit"), "used >= 0 AND (slots < 0 OR used <= slots OR shrinking)"
        )
        batch.drop_column("deferred_percent")


def _upgrade_triggers() -> None:
    with op.batch_alter_table("trigger", table_kwargs={"sqlite_autoincrement": True}) as batch:
        for name, type_ in _TASKS.items():  # a watcher's trigger is no task's
            batch.alter_column(name, existing_type=type_, nullable=True)
        batch.add_column(sa.Column("watcher_hash", sa.String(length=64)))
        batch.create_check_constraint(op.f("ck_trigger_whose"), _WHOSE)
    op.create_index(
        "uq_trigger_watcher_hash",
        "trigger",
        ["watcher_hash"],
        unique=True,
        **_where("watcher_hash IS NOT NULL"),
    )
    op.add_column("trigger", sa.Column("rank", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("trigger", sa.Column("start", sa.Text()))
    op.add_column(
        "trigger", sa.Column("strikes", sa.SmallInteger(), server_default="0", nullable=False)
    )
    op.add_column("trigger", sa.Column("trouble", sa.Text()))
    op.add_column("trigger", sa.Column("trouble_at", sa.BigInteger()))
    op.add_column("trigger", sa.Column("judged_at", sa.BigInteger()))
    op.drop_index("ix_trigger_poll", "trigger")
    op.create_index("ix_trigger_poll", "trigger", ["job_id", "rank", "id"], **_where(_POLL))
    op.drop_index("ix_trigger_external_key", "trigger")
    op.create_index(
        "ix_trigger_external_key",
        "trigger",
        ["external_key"],
        **_where(f"{_WITH_KEY} AND fired_at IS NULL"),
    )
    op.create_index("ix_trigger_awaited", "trigger", ["id"], **_where(_AWAITED))


def _create_external_events() -> None:
    op.create_table(
        "external_event",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("external_key", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("sender", sa.String(length=250), nullable=False),
        sa.Column("nonce", sa.String(length=64)),
        sa.Column("token_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("taken_at", sa.BigInteger()),
        sa.Column("woken", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_external_event"),
        sa.UniqueConstraint("nonce", name="uq_external_event_nonce"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_external_event_open",
        "external_event",
        ["external_key", "id"],
        **_where("taken_at IS NULL"),
    )
    op.create_index("ix_external_event_expires_at", "external_event", ["expires_at"])


def _create_kills() -> None:
    op.create_table(
        "trigger_kill",
        sa.Column("id", _KEY, autoincrement=False, nullable=False),
        sa.Column("classpath", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", _KEY),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("dispatch_id", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.Text()),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("strikes", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_kill"),
    )
    op.create_index("ix_trigger_kill_job_id", "trigger_kill", ["job_id", "id", "retry_at"])


def _create_watchers() -> None:
    op.create_table(
        "asset_watcher",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("uri", sa.String(length=250), nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("classpath", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("fileloc", sa.Text(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "uri", "name", name="pk_asset_watcher"),
    )
    op.create_index("ix_asset_watcher_hash", "asset_watcher", ["hash"])
    op.add_column("asset_event", sa.Column("watcher", sa.String(length=250)))
    op.add_column("asset_event", sa.Column("ref", sa.Text()))
    op.create_index("uq_asset_event_ref", "asset_event", ["ref", "uri"], unique=True)
    op.create_index("ix_asset_pending_event_id", "asset_pending", ["event_id"])
    op.create_index("ix_asset_use_event_id", "asset_use", ["event_id"])


def downgrade() -> None:
    _downgrade_pools()
    op.drop_index("ix_asset_use_event_id", "asset_use")
    op.drop_index("ix_asset_pending_event_id", "asset_pending")
    op.drop_index("uq_asset_event_ref", "asset_event")
    op.drop_column("asset_event", "ref")
    op.drop_column("asset_event", "watcher")
    op.drop_table("asset_watcher")
    op.execute("DELETE FROM trigger WHERE watcher_hash IS NOT NULL")
    op.drop_table("trigger_kill")
    op.drop_table("trigger_code")
    op.drop_table("external_event")
    op.execute(f"DELETE FROM trigger_event WHERE kind IN ({_ENDS})")  # noqa: S608 - a constant
    with op.batch_alter_table(
        "trigger_event", table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        batch.drop_constraint(op.f(_KIND), type_="check")
        batch.create_check_constraint(op.f(_KIND), f"kind IN ({_KINDS})")
        batch.alter_column("kind", existing_type=sa.String(20), type_=sa.String(10))
        batch.drop_column("xcoms")
    op.drop_index("ix_trigger_awaited", "trigger")
    op.drop_index("ix_trigger_external_key", "trigger")
    op.create_index("ix_trigger_external_key", "trigger", ["external_key"], **_where(_WITH_KEY))
    op.drop_index("ix_trigger_poll", "trigger")
    op.create_index("ix_trigger_poll", "trigger", ["job_id", "id"], **_where(_POLL))
    for column in ("judged_at", "trouble_at", "trouble", "strikes", "start", "rank"):
        op.drop_column("trigger", column)
    op.drop_index("uq_trigger_watcher_hash", "trigger")
    with op.batch_alter_table("trigger", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint(op.f("ck_trigger_whose"), type_="check")
        batch.drop_column("watcher_hash")
        for name, type_ in _TASKS.items():
            batch.alter_column(name, existing_type=type_, nullable=False)
