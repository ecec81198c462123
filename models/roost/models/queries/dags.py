"""DAG files, versions and schedules: what parsing stores and what create_runs reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "CustomDag",
    "DagRow",
    "DueDag",
    "FileRow",
    "active_dags",
    "backfilled_starts",
    "custom_dags",
    "deactivate_dags",
    "delete_file",
    "due_dags",
    "files",
    "forget_stamps",
    "last_interval",
    "plan_next",
    "record_file",
    "replan",
    "save_dag",
    "save_helpers",
    "save_source",
    "save_task_limits",
    "save_version",
]


class FileRow(NamedTuple):
    """A DAG file as last parsed. ``stamp`` tells whether it changed since."""

    fileloc: str
    code_hash: str
    stamp: str
    error: str | None


class DagRow(NamedTuple):
    """A DAG that its file still defines."""

    dag_id: str
    fileloc: str
    version_id: int
    hash: str


class DueDag(NamedTuple):
    """A DAG whose next scheduled run is due."""

    dag_id: str
    version_id: int
    next_run_after: int
    data: str
    upcoming: str


class CustomDag(NamedTuple):
    """A DAG with a timetable of the user's own, and how far it has come."""

    dag_id: str
    fileloc: str
    upcoming: str
    interval: tuple[int, int] | None


_FILES = Sql("SELECT fileloc, code_hash, stamp, error FROM dag_file")
_RECORD_FILE = Sql(
    "INSERT INTO dag_file (fileloc, code_hash, stamp, error, warnings, parsed_at, parse_us) "
    "VALUES (:fileloc, :code_hash, :stamp, :error, :warnings, {now}, :parse_us) "
    "ON CONFLICT (fileloc) DO UPDATE SET code_hash = excluded.code_hash, stamp = excluded.stamp, "
    "error = excluded.error, warnings = excluded.warnings, parsed_at = excluded.parsed_at, "
    "parse_us = excluded.parse_us"
)
_FORGET_STAMPS = Sql("UPDATE dag_file SET stamp = '' WHERE error IS NOT NULL")
_DELETE_FILE = Sql("DELETE FROM dag_file WHERE fileloc = :fileloc")
_SAVE_SOURCE = Sql(
    "INSERT INTO dag_source (code_hash, fileloc, source, triggers, created_at) "
    "VALUES (:code_hash, :fileloc, :source, :triggers, {now}) "
    "ON CONFLICT (code_hash) DO UPDATE SET triggers = excluded.triggers"
)
_SAVE_HELPERS = Sql(
    "INSERT INTO trigger_code (code_hash, files) VALUES (:code_hash, :files) "
    "ON CONFLICT (code_hash) DO NOTHING"
)
_SAVE_VERSION = Sql(
    "INSERT INTO dag_version (dag_id, hash, code_hash, fileloc, data, created_at) "
    "VALUES (:dag_id, :hash, :code_hash, :fileloc, :data, {now}) "
    "ON CONFLICT (dag_id, hash) DO UPDATE SET fileloc = excluded.fileloc RETURNING id"
)
_SAVE_DAG = Sql(
    "INSERT INTO dag (dag_id, fileloc, version_id, is_paused, is_active, schedule, owners, tags, "
    "description, upcoming, next_run_after, next_interval_start, next_interval_end, updated_at) "
    "VALUES (:dag_id, :fileloc, :version_id, :is_paused, {true}, :schedule, :owners, :tags, "
    ":description, :upcoming, :next_run_after, :next_interval_start, :next_interval_end, {now}) "
    "ON CONFLICT (dag_id) DO UPDATE SET fileloc = excluded.fileloc, "
    "version_id = excluded.version_id, is_active = {true}, schedule = excluded.schedule, "
    "owners = excluded.owners, tags = excluded.tags, description = excluded.description, "
    "upcoming = excluded.upcoming, next_run_after = excluded.next_run_after, "
    "next_interval_start = excluded.next_interval_start, "
    "next_interval_end = excluded.next_interval_end, updated_at = excluded.updated_at"
)
_SAVE_USAGE = Sql(
    "INSERT INTO dag_usage (dag_id, runs, max_runs) VALUES (:dag_id, 0, :max_runs) "
    "ON CONFLICT (dag_id) DO UPDATE SET max_runs = excluded.max_runs, "
    "shrinking = dag_usage.runs > excluded.max_runs"
)
# A task that has lost its limit keeps its row: runs of older versions are still counted in it.
_LIFT_TASKS = Sql(
    "UPDATE task_usage SET max_used = 2147483647, shrinking = {false} WHERE dag_id = :dag_id "
    "AND task_id NOT IN (SELECT r.task_id FROM {rows:r | task_id text, max_used integer})"
)
_LIMIT_TASKS = Sql(
    "INSERT INTO task_usage (dag_id, task_id, used, max_used) "
    "SELECT :dag_id, r.task_id, 0, r.max_used "
    "FROM {rows:r | task_id text, max_used integer} WHERE {true} ORDER BY r.task_id "
    "ON CONFLICT (dag_id, task_id) DO UPDATE SET max_used = excluded.max_used, "
    "shrinking = task_usage.used > excluded.max_used"
)
_ACTIVE = Sql(
    "SELECT d.dag_id, d.fileloc, d.version_id, v.hash FROM dag d "
    "JOIN dag_version v ON v.id = d.version_id WHERE d.is_active"
)
_DEACTIVATE = Sql(
    "UPDATE dag SET is_active = {false}, next_run_after = NULL, updated_at = {now} "
    "WHERE dag_id IN (SELECT r.dag_id FROM {rows:r | dag_id text})"
)
# The index holds runs of the schedule and of backfills, and is so said word for word.
_SCHEDULED = "run_type = 'scheduled' AND run_type IN ('scheduled', 'backfill')"
_RUNS = "dag_run {indexed:uq_dag_run_interval}"
_NEWEST_INTERVAL = Sql(
    f"SELECT interval_start, interval_end FROM {_RUNS} WHERE dag_id = :dag_id AND {_SCHEDULED} "
    "ORDER BY interval_start DESC LIMIT 1"
)
_LAST_INTERVAL = Sql(
    f"SELECT interval_end FROM {_RUNS} WHERE dag_id = :dag_id AND {_SCHEDULED} "
    "ORDER BY interval_start DESC LIMIT 1"
)
_CUSTOM = Sql(
    "SELECT d.dag_id, d.fileloc, d.upcoming, r.interval_start, r.interval_end FROM dag d "
    "LEFT JOIN dag_run r ON r.id = (SELECT l.id FROM dag_run l "
    "{indexed:uq_dag_run_interval} WHERE l.dag_id = d.dag_id "
    "AND l.run_type = 'scheduled' AND l.run_type IN ('scheduled', 'backfill') "
    "ORDER BY l.interval_start DESC LIMIT 1) "
    "WHERE d.is_active AND d.upcoming <> '[]'"
)
_REPLAN = Sql(
    "UPDATE dag SET upcoming = :upcoming, next_run_after = :next_run_after, "
    "next_interval_start = :next_interval_start, next_interval_end = :next_interval_end "
    "WHERE dag_id = :dag_id"
)
# Those that may have no further run now are left out here: they must not stand in the way of
# others. Ties are ordered, so that schedulers come to the rows in one order and cannot deadlock.
_DUE = Sql(
    "WITH active AS MATERIALIZED (SELECT dag_id, count(*) AS n FROM dag_run "
    "WHERE end_date IS NULL AND run_type = 'scheduled' AND backfill_id IS NULL GROUP BY dag_id) "
    "SELECT d.dag_id, d.version_id, d.next_run_after, v.data, d.upcoming FROM dag d "
    "JOIN dag_version v ON v.id = d.version_id JOIN dag_usage u ON u.dag_id = d.dag_id "
    "LEFT JOIN active a ON a.dag_id = d.dag_id "
    "WHERE d.next_run_after <= :now AND NOT d.is_paused AND d.is_active "
    "AND coalesce(a.n, 0) < u.max_runs ORDER BY d.next_run_after, d.dag_id LIMIT :limit"
)
_BACKFILLED = Sql(
    "SELECT interval_start FROM dag_run WHERE dag_id = :dag_id AND run_type = 'backfill' "
    "AND run_type IN ('scheduled', 'backfill') AND interval_start >= :since"
)
_PLAN_NEXT = Sql(
    "UPDATE dag SET next_run_after = :next_run_after, next_interval_start = :next_interval_start, "
    "next_interval_end = :next_interval_end "
    "WHERE dag_id = :dag_id AND next_run_after = :was_due"
)


def files(tx: Tx) -> dict[str, FileRow]:
    """Every DAG file that was parsed, by its path."""
    return {row.fileloc: FileRow._make(row) for row in tx.all(_FILES)}


def record_file(
    tx: Tx,
    fileloc: str,
    *,
    code_hash: str,
    stamp: str,
    error: str | None,
    warnings: str,
    parse_us: int,
) -> None:
    """Store what the last parse of a file gave."""
    tx.run(
        _RECORD_FILE,
        fileloc=fileloc,
        code_hash=code_hash,
        stamp=stamp,
        error=error,
        warnings=warnings,
        parse_us=parse_us,
    )


def forget_stamps(tx: Tx) -> None:
    """Have files with an import error parsed again: what was in their way may be gone."""
    tx.run(_FORGET_STAMPS)


def delete_file(tx: Tx, fileloc: str) -> None:
    """Forget a file that is gone."""
    tx.run(_DELETE_FILE, fileloc=fileloc)


def save_source(tx: Tx, code_hash: str, fileloc: str, source: str, triggers: str) -> None:
    """Keep the text of a DAG file: workers run exactly the version that was dispatched."""
    tx.run(_SAVE_SOURCE, code_hash=code_hash, fileloc=fileloc, source=source, triggers=triggers)


def save_helpers(tx: Tx, code_hash: str, files: str) -> None:
    """Keep the texts of a version's helper modules, as JSON by module name (D23)."""
    tx.run(_SAVE_HELPERS, code_hash=code_hash, files=files)


def save_version(
    tx: Tx, *, dag_id: str, hash_: str, code_hash: str, fileloc: str, data: str
) -> int:
    """Store a version of a DAG, once; gives its id."""
    return int(
        tx.scalar(
            _SAVE_VERSION,
            dag_id=dag_id,
            hash=hash_,
            code_hash=code_hash,
            fileloc=fileloc,
            data=data,
        )
    )


def save_dag(tx: Tx, *, max_runs: int, **columns: Any) -> None:
    """Make a version the current one of its DAG, with its next scheduled run and its limit."""
    tx.run(_SAVE_DAG, **columns)
    tx.run(_SAVE_USAGE, dag_id=columns["dag_id"], max_runs=max_runs)


def save_task_limits(tx: Tx, dag_id: str, limits: Mapping[str, int]) -> None:
    """Store ``max_active_tis_per_dag`` of the DAG's tasks that have it, by task id (H4)."""
    rows = tx.rows([{"task_id": task_id, "max_used": n} for task_id, n in limits.items()])
    tx.run(_LIFT_TASKS, dag_id=dag_id, rows=rows)
    if limits:
        tx.run(_LIMIT_TASKS, dag_id=dag_id, rows=rows)


def active_dags(tx: Tx) -> dict[str, DagRow]:
    """Every DAG that a file defines, by id."""
    return {row.dag_id: DagRow._make(row) for row in tx.all(_ACTIVE)}


def deactivate_dags(tx: Tx, dag_ids: list[str]) -> None:
    """Stop scheduling DAGs whose file no longer defines them; their runs end normally."""
    if dag_ids:
        tx.run(_DEACTIVATE, rows=tx.rows([{"dag_id": dag_id} for dag_id in dag_ids]))


def last_interval(tx: Tx, dag_id: str, *, listed: bool = False) -> tuple[int, int] | None:
    """The newest data interval that has a scheduled run, or None.

    Args:
        tx: the transaction.
        dag_id: of the runs.
        listed: the DAG's timetable is the user's own. Of others only the end matters, which
            costs less to find: it stands for the start, too.
    """
    if not listed:
        end = tx.scalar(_LAST_INTERVAL, dag_id=dag_id)
        return None if end is None else (int(end), int(end))
    row = tx.first(_NEWEST_INTERVAL, dag_id=dag_id)
    return None if row is None else (row.interval_start, row.interval_end)


def custom_dags(tx: Tx) -> list[CustomDag]:
    """Every DAG with a timetable of the user's own."""
    return [
        CustomDag(dag_id, fileloc, upcoming, None if start is None else (start, end))
        for dag_id, fileloc, upcoming, start, end in tx.all(_CUSTOM)
    ]


def replan(tx: Tx, dag_id: str, **columns: Any) -> None:
    """Replace what a timetable of the user's own said comes next, and the next run."""
    tx.run(_REPLAN, dag_id=dag_id, **columns)


def backfilled_starts(tx: Tx, dag_id: str, since: int) -> set[int]:
    """Starts of the intervals, from one on, that have a run of a backfill instead of one of
    their own."""
    return {row[0] for row in tx.all(_BACKFILLED, dag_id=dag_id, since=since)}


def due_dags(tx: Tx, now: int, limit: int) -> list[DueDag]:
    """DAGs whose next run is due and that may have one more, longest overdue first."""
    return [DueDag._make(row) for row in tx.all(_DUE, now=now, limit=limit)]


def plan_next(
    tx: Tx,
    dag_id: str,
    *,
    was_due: int,
    next_run_after: int | None,
    next_interval_start: int | None,
    next_interval_end: int | None,
) -> bool:
    """Advance a DAG's schedule; False when another scheduler has done so already."""
    return (
        tx.run(
            _PLAN_NEXT,
            dag_id=dag_id,
            was_due=was_due,
            next_run_after=next_run_after,
            next_interval_start=next_interval_start,
            next_interval_end=next_interval_end,
        )
        == 1
    )
