"""``roost pools``: named numbers of slots (S37-S41)."""

from __future__ import annotations

from typing import Any

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, output_option
from roost.cli.pool_files import MAX_NAME, MAX_SLOTS, is_pool_name
from roost.cli.session import database, reading, ring
from roost.cli.words import not_found
from roost.exceptions import RoostException
from roost.models.engine import Tx, transact
from roost.models.queries.edits import delete_pool, set_pool
from roost.models.queries.listing import pool_rows
from roost.models.slots import WHOLE, as_slots, share

__all__ = ["delete", "get", "list_", "pools", "set_"]

_COMMANDS = {
    "list": Lazy("roost.cli.pools:list_", "List the pools and what their slots do."),
    "get": Lazy("roost.cli.pools:get", "Show one pool."),
    "set": Lazy("roost.cli.pools:set_", "Create a pool, or change one."),
    "delete": Lazy("roost.cli.pools:delete", "Delete a pool that is not in use."),
    "import": Lazy("roost.cli.pool_files:import_", "Create and change pools from a JSON file."),
    "export": Lazy("roost.cli.pool_files:export", "Write all pools to a JSON file."),
}
_COLUMNS = (
    "pool", "slots", "include_deferred", "running", "queued", "deferred", "scheduled", "open",
    "description", "deferred_percent",
)  # fmt: skip


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def pools() -> None:
    """List, change, import and export pools."""


def _row(pool: Any, states: dict[str, int]) -> dict[str, Any]:
    return {
        "pool": pool.pool,
        "slots": pool.slots,
        "include_deferred": pool.deferred_percent > 0,
        "running": states.get("running", 0),
        "queued": states.get("queued", 0),
        "deferred": states.get("deferred", 0),
        "scheduled": states.get("scheduled", 0),
        # -1 has no limit (S40); a pool that was made smaller may be over its own for a while.
        "open": -1 if pool.slots < 0 else max(0, (share(pool.slots) - pool.used) // WHOLE),
        "description": pool.description,
        "deferred_percent": pool.deferred_percent,
    }


@click.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List the pools and what their slots do.

    -1 slots is without limit.
    """
    with reading() as (_, tx):
        rows = [_row(pool, states) for pool, states in pool_rows(tx)]
    emit(rows, _COLUMNS, output)


@click.command(cls=Command)
@click.argument("pool")
@output_option
def get(pool: str, output: str) -> None:
    """Show one pool."""
    with reading() as (_, tx):
        found = pool_rows(tx, pool)
        if not found:
            raise _no_pool(tx, pool)
    emit([_row(*row) for row in found], _COLUMNS, output)


def _no_pool(tx: Tx, pool: str) -> Exception:
    known = [row.pool for row, _ in pool_rows(tx)]
    return not_found("pool", pool, known, "`roost pools list` shows them")


@click.command("set", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("pool")
@click.argument("slots", type=click.IntRange(-1, MAX_SLOTS))
@click.argument("description", required=False)
@click.option(
    "--include-deferred/--exclude-deferred",
    default=None,
    help="Whether deferred tasks hold their slots too; a new pool excludes them.",
)
@click.option(
    "--deferred-percent",
    type=click.IntRange(0, 100),
    help="How much of its slots a deferred task holds: 0 not at all, 100 wholly.",
)
def set_(
    pool: str,
    slots: int,
    description: str | None,
    include_deferred: bool | None,
    deferred_percent: int | None,
) -> None:
    """Create a pool, or change one.

    SLOTS -1 is without limit. With fewer slots than are in use nothing new starts until enough
    are free. --include-deferred is --deferred-percent 100, --exclude-deferred is 0; with 25, four
    deferred tasks hold one slot.
    """
    if include_deferred is not None:
        if deferred_percent is not None:
            raise click.UsageError("give --deferred-percent, or --include/--exclude-deferred")
        deferred_percent = WHOLE if include_deferred else 0
    if not pool.strip():
        raise click.UsageError("a pool needs a name")
    if not is_pool_name(pool):
        raise click.UsageError(f"a pool's name has 1 to {MAX_NAME} printable characters")
    with database() as (config, engine):
        new = transact(
            engine,
            lambda tx: set_pool(
                tx, pool, slots=slots, deferred_percent=deferred_percent, description=description
            ),
        )
        ring(config, engine)
    click.echo(f"pool {pool} {'created' if new else 'changed'}: {slots} slots")


@click.command(cls=Command)
@click.argument("pool")
def delete(pool: str) -> None:
    """Delete a pool that is not in use."""
    if pool == "default_pool":  # S38
        raise RoostException("default_pool cannot be deleted; `roost pools set` changes its slots")
    with database() as (_, engine):

        def step(tx: Tx) -> None:
            if delete_pool(tx, pool):
                return
            found = pool_rows(tx, pool)
            if not found:
                raise _no_pool(tx, pool)
            used = as_slots(found[0][0].used)
            raise RoostException(
                f"{used} slots of pool {pool} are in use; delete it when its tasks have ended"
            )

        transact(engine, step)
    click.echo(f"pool {pool} deleted")
