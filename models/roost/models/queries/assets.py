"""Events of assets, the DAGs that listen, and the runs that use them (H16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.sql import Row

__all__ = [
    "NewEvent",
    "add_events",
    "add_uses",
    "asset_rows",
    "event_rows",
    "listeners",
    "lock_listeners",
    "note_pending",
    "pending",
    "set_listener",
    "take_events",
    "used_by",
]


class NewEvent(NamedTuple):
    """An event to write; all but ``uri`` and ``extra`` are None where a person made it."""

    uri: str
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int = -1
    extra: str = "{}"


_ADD = Sql(
    "INSERT INTO asset_event (uri, at, dag_id, run_id, task_id, map_index, extra) "
    "SELECT r.uri, {now}, r.dag_id, r.run_id, r.task_id, r.map_index, r.extra FROM {rows:r | "
    "uri text, dag_id text, run_id text, task_id text, map_index integer, extra text}"
)
_TAKE = Sql(
    "UPDATE asset_event SET settled = {true} WHERE id IN ("
    "SELECT id FROM asset_event WHERE NOT settled ORDER BY id LIMIT :limit {skip_locked}) "
    "RETURNING id, uri"
)
_LISTENING = Sql(
    "SELECT DISTINCT l.dag_id FROM asset_listener l "
    "WHERE l.uri IN (SELECT r.uri FROM {rows:r | uri text})"
)
_LOCK = Sql(
    "SELECT dag_id, version_id FROM dag WHERE is_active AND NOT is_paused "
    "AND dag_id IN (SELECT r.dag_id FROM {rows:r | dag_id text}) ORDER BY dag_id {for_update}"
)
_NOTE = Sql(
    "INSERT INTO asset_pending (dag_id, event_id, uri) "
    "SELECT l.dag_id, r.id, r.uri FROM {rows:r | id bigint, uri text} "
    "JOIN asset_listener l ON l.uri = r.uri "
    "WHERE l.dag_id IN (SELECT d.dag_id FROM {rows:d = dags | dag_id text}) ON CONFLICT DO NOTHING"
)
_PENDING = Sql("SELECT event_id, uri FROM asset_pending WHERE dag_id = :dag_id ORDER BY event_id")
_USE = Sql(
    "INSERT INTO asset_use (dag_run_id, event_id) "
    "SELECT :run_key, event_id FROM asset_pending WHERE dag_id = :dag_id"
)
_FORGET = Sql("DELETE FROM asset_pending WHERE dag_id = :dag_id")
_SILENCE = Sql("DELETE FROM asset_listener WHERE dag_id = :dag_id")
_LISTEN = Sql(
    "INSERT INTO asset_listener (uri, dag_id) "
    "SELECT r.uri, :dag_id FROM {rows:r | uri text} WHERE {true} ON CONFLICT DO NOTHING"
)
_UNWANTED = Sql(
    "DELETE FROM asset_pending WHERE dag_id = :dag_id AND uri NOT IN "
    "(SELECT uri FROM asset_listener WHERE dag_id = :dag_id)"
)
_EVENT = "e.id, e.uri, e.at, e.dag_id, e.run_id, e.task_id, e.map_index, e.extra, e.watcher"
_USED = Sql(
    f"SELECT {_EVENT} FROM asset_use u JOIN asset_event e ON e.id = u.event_id "
    "JOIN dag_run r ON r.id = u.dag_run_id WHERE r.dag_id = :dag_id AND r.run_id = :run_id "
    "ORDER BY e.id"
)
_EVENTS = Sql(
    f"SELECT {_EVENT} FROM asset_event e WHERE e.uri = :uri ORDER BY e.id DESC LIMIT :limit"
)
_LISTENERS = Sql("SELECT uri, dag_id FROM asset_listener ORDER BY uri, dag_id")
_LAST = Sql("SELECT uri, max(at) AS last, count(*) AS events FROM asset_event GROUP BY uri")


def add_events(tx: Tx, events: Sequence[NewEvent]) -> None:
    """Write events; a scheduler takes them up in its next turn, or in this one if it is its own."""
    if events:
        tx.run(_ADD, rows=tx.rows([event._asdict() for event in events]))


def take_events(tx: Tx, limit: int) -> list[tuple[int, str]]:
    """Take events that no scheduler has looked at, ``(id, uri)``, oldest first."""
    return sorted((row.id, row.uri) for row in tx.all(_TAKE, limit=limit))


def lock_listeners(tx: Tx, uris: Sequence[str]) -> dict[str, int]:
    """Active DAGs that listen to any of these, with their version; locked in one order.

    Two schedulers that each bring one half of what a DAG waits for see each other's half.
    """
    rows = tx.all(_LISTENING, rows=tx.rows([{"uri": uri} for uri in uris]))
    if not rows:
        return {}
    wanted = tx.rows([{"dag_id": row.dag_id} for row in rows])
    return {row.dag_id: row.version_id for row in tx.all(_LOCK, rows=wanted)}


def note_pending(tx: Tx, events: Sequence[tuple[int, str]], dag_ids: Sequence[str]) -> None:
    """Let events wait for these DAGs' next runs."""
    rows = tx.rows([{"id": id_, "uri": uri} for id_, uri in events])
    tx.run(_NOTE, rows=rows, dags=tx.rows([{"dag_id": dag_id} for dag_id in dag_ids]))


def pending(tx: Tx, dag_id: str) -> dict[str, int]:
    """Assets with events that no run of the DAG has used yet, and the id of the newest of each."""
    return {row.uri: row.event_id for row in tx.all(_PENDING, dag_id=dag_id)}


def add_uses(tx: Tx, dag_id: str, run_key: int) -> None:
    """Give a run all events that waited for its DAG."""
    tx.run(_USE, dag_id=dag_id, run_key=run_key)
    tx.run(_FORGET, dag_id=dag_id)


def set_listener(tx: Tx, dag_id: str, uris: Sequence[str]) -> None:
    """Say what a DAG listens to; events of what it does not any more are forgotten."""
    tx.run(_SILENCE, dag_id=dag_id)
    if uris:
        tx.run(_LISTEN, dag_id=dag_id, rows=tx.rows([{"uri": uri} for uri in uris]))
    tx.run(_UNWANTED, dag_id=dag_id)


def used_by(tx: Tx, dag_id: str, run_id: str) -> Sequence[Row]:
    """The events that a run was made for."""
    return tx.all(_USED, dag_id=dag_id, run_id=run_id)


def event_rows(tx: Tx, uri: str, limit: int) -> Sequence[Row]:
    """The newest events of an asset."""
    return tx.all(_EVENTS, uri=uri, limit=limit)


def listeners(tx: Tx) -> dict[str, list[str]]:
    """The DAGs that listen, by asset."""
    found: dict[str, list[str]] = {}
    for row in tx.all(_LISTENERS):
        found.setdefault(row.uri, []).append(row.dag_id)
    return found


def asset_rows(tx: Tx) -> dict[str, Any]:
    """When each asset had its last event, and how many it had."""
    return {row.uri: row for row in tx.all(_LAST)}
