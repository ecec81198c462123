"""``roost assets``: what tasks make, who waits for it, and what happened to it (H16)."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roost.cli.base import Command, Lazy, LazyGroup
from roost.cli.output import emit, iso, output_option
from roost.cli.session import database, reading, ring
from roost.cli.words import not_found
from roost.dag.model import SerializedDag
from roost.exceptions import RoostException
from roost.models.engine import Tx, transact
from roost.models.queries import assets as queries
from roost.models.queries import listing, watchers

__all__ = ["assets", "details", "emit_", "list_"]

_COMMANDS = {
    "list": Lazy("roost.cli.assets:list_", "List the assets that DAGs make or wait for."),
    "details": Lazy("roost.cli.assets:details", "Show the newest events of an asset."),
    "emit": Lazy("roost.cli.assets:emit_", "Say that an asset was made anew."),
}
_COLUMNS = ("uri", "made_by", "awaited_by", "events", "last_event", "watched_by")
_EVENT_COLUMNS = ("timestamp", "dag_id", "run_id", "task_id", "map_index", "extra", "watcher")
_MOST = 100


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def assets() -> None:
    """What tasks make, and DAGs wait for."""


def _rows(tx: Tx) -> list[dict[str, Any]]:
    makers: dict[str, list[str]] = {}
    for row in listing.active_versions(tx):
        dag = msgspec.json.decode(row.data, type=SerializedDag)
        for task in dag.tasks:
            for uri in task.outlets:
                makers.setdefault(uri, []).append(f"{dag.dag_id}.{task.task_id}")
    watching: dict[str, list[dict[str, Any]]] = {}
    for row in watchers.rows(tx):
        watching.setdefault(row.uri, []).append(_watcher(row))
    waiting, seen = queries.listeners(tx), queries.asset_rows(tx)
    return [
        {
            "uri": uri,
            "made_by": makers.get(uri, []),
            "awaited_by": waiting.get(uri, []),
            "events": seen[uri].events if uri in seen else 0,
            "last_event": iso(seen[uri].last) if uri in seen else None,
            "watched_by": watching.get(uri, []),
        }
        for uri in sorted({*makers, *waiting, *seen})
    ]


def _watcher(row: Any) -> dict[str, Any]:
    """A watcher, its DAG, its trigger and how that is: without one, its DAG is paused."""
    return {
        "name": row.name,
        "dag_id": row.dag_id,
        "classpath": row.classpath,
        "trigger_id": row.trigger_id,
        "triggerer": f"{row.hostname}:{row.pid}" if row.hostname else None,
        "strikes": row.strikes,
        "trouble": row.trouble,
    }


@click.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List the assets that DAGs make or wait for, and those that had events.

    events: how many of them are kept, see scheduler.asset_event_retention.
    """
    with reading() as (_, tx):
        rows = _rows(tx)
    if output not in ("json", "yaml"):
        rows = [{**row, "watched_by": [_brief(one) for one in row["watched_by"]]} for row in rows]
    emit(rows, _COLUMNS, output)


def _brief(watcher: dict[str, Any]) -> str:
    """A watcher for a table: its name, and its trigger."""
    if watcher["trigger_id"] is None:
        return f"{watcher['name']} (paused)"
    ill = ", in trouble" if watcher["trouble"] else ""
    return f"{watcher['name']} (trigger {watcher['trigger_id']}{ill})"


@click.command(cls=Command)
@click.argument("uri")
@output_option
def details(uri: str, output: str) -> None:
    """Show the newest events of an asset, the latest first."""
    with reading() as (_, tx):
        known = [row["uri"] for row in _rows(tx)]
        events = queries.event_rows(tx, uri, _MOST)
    if uri not in known:
        raise not_found("asset", uri, known, "does a DAG name it?")
    emit(
        [
            {**row._asdict(), "timestamp": iso(row.at), "extra": msgspec.json.decode(row.extra)}
            for row in events
        ],
        _EVENT_COLUMNS,
        output,
    )


@click.command("emit", cls=Command)
@click.argument("uri")
@click.option("--extra", default="{}", help="JSON object to keep with the event.")
def emit_(uri: str, extra: str) -> None:
    """Say that an asset was made anew by something outside.

    DAGs that wait for it are started as if a task had made it.
    """
    try:
        kept = msgspec.json.decode(extra, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RoostException(f"--extra must be a JSON object: {error}") from None
    text = msgspec.json.encode(kept).decode()
    with database() as (config, engine):

        def step(tx: Tx) -> list[str]:
            known = [row["uri"] for row in _rows(tx)]
            if uri not in known:
                raise not_found("asset", uri, known, "does a DAG name it?")
            queries.add_events(tx, [queries.NewEvent(uri, extra=text)])
            return queries.listeners(tx).get(uri, [])

        waiting = transact(engine, step)
        ring(config, engine, "scheduler")
    told = f"; awaited by {', '.join(waiting)}" if waiting else "; no DAG waits for it"
    click.echo(f"event of {uri} stored{told}")
