"""``roost triggers``: what deferred tasks wait for."""

from __future__ import annotations

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.models.queries.listing import trigger_rows

__all__ = ["list_", "triggers"]

_COMMANDS = {"list": Lazy("roost.cli.triggers:list_", "List the triggers that are waited for.")}
_COLUMNS = (
    "trigger_id", "lane", "classpath", "dag_id", "run_id", "task_id", "map_index", "triggerer",
    "created_at", "due_at",
)  # fmt: skip


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def triggers() -> None:
    """Ask what deferred tasks wait for."""


@click.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List the triggers that are waited for.

    A trigger of the timer lane is a row and a moment; no triggerer runs code for it.
    """
    with reading() as (_, tx):
        rows = [
            {
                **row._asdict(),
                "triggerer": f"{row.hostname}:{row.pid}" if row.hostname else None,
                "created_at": iso(row.created_at),
                "due_at": iso(row.due_at),
            }
            for row in trigger_rows(tx)
        ]
    emit(rows, _COLUMNS, output)
