"""``roost triggers``: what deferred tasks wait for."""

from __future__ import annotations

from typing import Any

import click

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, iso, output_option
from roost.cli.paging import Pages, limit_option
from roost.cli.session import database
from roost.models.queries.trigger_listing import Wanted, trigger_count, trigger_rows

__all__ = ["list_", "triggers"]

_COMMANDS = {
    "list": Lazy("roost.cli.triggers:list_", "List the triggers that are waited for."),
    "show": Lazy("roost.cli.trigger_show:show", "Show everything about one trigger."),
    "why": Lazy("roost.cli.trigger_show:why", "Say why a trigger has not fired."),
    "load": Lazy("roost.cli.trigger_load:load", "List the triggerers that live."),
}
_COLUMNS = (
    "trigger_id", "lane", "classpath", "dag_id", "run_id", "task_id", "map_index", "triggerer",
    "created_at", "due_at", "strikes", "trouble", "timeout_at", "queue", "code", "watcher",
)  # fmt: skip


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def triggers() -> None:
    """Ask what deferred tasks wait for."""


@click.command("list", cls=Command)
@click.option("--dag-id", help="Only of this DAG.")
@click.option("--run-id", help="Only of this run.")
@click.option("--task-id", help="Only of this task.")
@click.option("--classpath", help="Only of this class: its name, or all of its path.")
@click.option("--lane", type=click.Choice(["timer", "external", "poll"]), help="Only of this lane.")
@click.option("--triggerer", help="Only those that this one runs: host, or host:pid.")
@click.option("--queue", help="Only of this queue.")
@click.option("--in-trouble", is_flag=True, help="Only those that have strikes or trouble.")
@limit_option
@output_option
def list_(limit: int, output: str, **wanted: Any) -> None:
    """List the triggers that are waited for, and those of watchers, oldest first.

    A trigger of the timer or the external lane is a row; no triggerer runs code for it. strikes:
    how often it ended or blocked its runner, trouble: the last time. code: the version of its file.
    watcher: it is no task's, but the watcher's of that name; `roost assets list` shows the assets.
    """
    asked = Wanted(**wanted)
    with database() as (_, engine):
        pages = Pages(engine, lambda tx, after, most: trigger_rows(tx, asked, after, most), limit)
        emit(map(_shown, pages), _COLUMNS, output)
        pages.tell_rest(
            lambda tx, after: trigger_count(tx, asked, after),
            "--dag-id, --task-id, --classpath, --triggerer, --queue and --in-trouble",
        )


def _shown(row: Any) -> dict[str, Any]:
    return {
        **row._asdict(),
        "triggerer": f"{row.hostname}:{row.pid}" if row.hostname else None,
        "created_at": iso(row.created_at),
        "due_at": iso(row.due_at),
        "timeout_at": iso(row.timeout_at),
        "code": row.code_hash[:12],
    }
