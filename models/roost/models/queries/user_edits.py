"""What a user's edit of runs and task instances reads and writes beside the moves themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "EditableInstance",
    "EditableRun",
    "delete_triggers_of",
    "instances",
    "instances_of_runs",
    "lock",
    "newest_versions",
    "note_wish",
    "open_runs",
    "use_versions",
    "wish_for",
]


class EditableRun(NamedTuple):
    """A run, locked."""

    id: int
    dag_id: str
    run_id: str
    state: str
    version_id: int


class EditableInstance(NamedTuple):
    """A task instance as an edit finds it."""

    id: int
    dag_run_id: int
    task_id: str
    map_index: int
    state: str
    try_number: int
    next_method: str | None
    pool: str
    pool_slots: int


_COLUMNS = ", ".join(EditableInstance._fields)
# Every turn of a scheduler share-locks its job's row first (see look.py): with these rows locked
# no turn is under way, and what the next one decides it decides on the edited rows.
_LOCK_SCHEDULERS = Sql(
    "SELECT id FROM job WHERE kind = 'scheduler' AND ended_at IS NULL ORDER BY id {for_update}"
)
_LOCK_RUNS = Sql(
    f"SELECT {', '.join(EditableRun._fields)} FROM dag_run "
    "WHERE id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY id {for_update}"
)
_INSTANCES = Sql(
    f"SELECT {_COLUMNS} FROM task_instance "
    "WHERE id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY id"
)
_OF_RUNS = Sql(
    f"SELECT {_COLUMNS} FROM task_instance "
    "WHERE dag_run_id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY id"
)
_WISH = Sql(
    "UPDATE dispatch SET wish = :wish WHERE NOT settled "
    "AND ti_id IN (SELECT r.id FROM {rows:r | id bigint})"
)
_DELETE_TRIGGERS = Sql("DELETE FROM trigger WHERE ti_id IN (SELECT r.id FROM {rows:r | id bigint})")
_NOTE_WISH = Sql("UPDATE dag_run SET wish = :wish, changed = {true} WHERE id = :id")
_OPEN = Sql(
    "UPDATE dag_run SET wish = NULL, changed = {true} WHERE end_date IS NULL "
    "AND id IN (SELECT r.id FROM {rows:r | id bigint})"
)
_NEWEST = Sql(
    "SELECT d.dag_id, d.version_id, v.data FROM dag d JOIN dag_version v ON v.id = d.version_id "
    "WHERE d.is_active AND d.dag_id IN (SELECT r.dag_id FROM {rows:r | dag_id text})"
)
_USE_VERSIONS = Sql(
    "UPDATE dag_run AS t SET version_id = r.version_id "
    "FROM {rows:r | id bigint, version_id bigint} WHERE t.id = r.id"
)


def lock(tx: Tx, run_keys: Iterable[int]) -> list[EditableRun]:
    """Lock runs for an edit, so that no scheduler's turn sees half of it; those that exist."""
    tx.all(_LOCK_SCHEDULERS)
    return [EditableRun._make(row) for row in tx.all(_LOCK_RUNS, rows=_ids(tx, set(run_keys)))]


def instances(tx: Tx, ti_ids: Iterable[int]) -> list[EditableInstance]:
    """Task instances by id, as they are now."""
    return [EditableInstance._make(row) for row in tx.all(_INSTANCES, rows=_ids(tx, ti_ids))]


def instances_of_runs(tx: Tx, run_keys: Iterable[int]) -> list[EditableInstance]:
    """Every task instance of these runs, as they are now."""
    return [EditableInstance._make(row) for row in tx.all(_OF_RUNS, rows=_ids(tx, run_keys))]


def wish_for(tx: Tx, ti_ids: Iterable[int], wish: str) -> None:
    """Say what shall become of task instances that are queued or run, instead of their outcome."""
    tx.run(_WISH, rows=_ids(tx, ti_ids), wish=wish)


def delete_triggers_of(tx: Tx, ti_ids: Iterable[int]) -> None:
    """Remove what task instances wait for, with its events: nothing comes of them any more."""
    tx.run(_DELETE_TRIGGERS, rows=_ids(tx, ti_ids))


def note_wish(tx: Tx, run_key: int, wish: str | None) -> None:
    """Say how a running run shall end; its scheduler ends it when nothing of it runs any more."""
    tx.run(_NOTE_WISH, id=run_key, wish=wish)


def open_runs(tx: Tx, run_keys: Iterable[int]) -> None:
    """Have unfinished runs read again by their schedulers, and end as their tasks do."""
    tx.run(_OPEN, rows=_ids(tx, run_keys))


def newest_versions(tx: Tx, dag_ids: Iterable[str]) -> dict[str, tuple[int, str]]:
    """``(version id, data)`` of the DAGs among these that a file defines, by DAG."""
    rows = tx.rows([{"dag_id": dag_id} for dag_id in dag_ids])
    return {row.dag_id: (row.version_id, row.data) for row in tx.all(_NEWEST, rows=rows)}


def use_versions(tx: Tx, versions: Mapping[int, int]) -> None:
    """Let runs go on with another version of their DAG, by run."""
    rows: Sequence[Mapping[str, Any]] = [
        {"id": run_key, "version_id": version_id} for run_key, version_id in versions.items()
    ]
    tx.run(_USE_VERSIONS, rows=tx.rows(rows))


def _ids(tx: Tx, ids: Iterable[int]) -> str:
    return tx.rows([{"id": id_} for id_ in ids])
