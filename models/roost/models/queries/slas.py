"""SLA misses: which there are, and who was told of them (S100-S105)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "Blocking",
    "Miss",
    "active_versions",
    "blocking",
    "claim_untold",
    "note_misses",
    "sla_miss_rows",
    "versions_with_sla",
]


class Miss(NamedTuple):
    """A task that had not succeeded in a run when its time was up. Moments in microseconds."""

    task_id: str
    logical_date: int
    timestamp: int
    dag_run_id: int


class Blocking(NamedTuple):
    """A task instance of such a run that has not succeeded either."""

    task_id: str
    map_index: int
    state: str
    try_number: int
    run_id: str
    logical_date: int


_ACTIVE = Sql("SELECT dag_id, version_id FROM dag WHERE is_active AND NOT is_paused")
# What is left at its default is not stored, so the text names the key only where there is an sla.
_WITH_SLA = Sql(
    "SELECT id, data FROM dag_version WHERE id IN (SELECT r.id FROM {rows:r | id bigint}) "
    "AND data LIKE :pattern"
)
# From a task's last success or skip onward: walked from the newest run back, so a run or two.
_SINCE = (
    "COALESCE((SELECT p.logical_date FROM dag_run p WHERE p.dag_id = :dag_id "
    "AND p.run_type = 'scheduled' AND EXISTS (SELECT 1 FROM task_instance t "
    "WHERE t.dag_run_id = p.id AND t.task_id = w.task_id) "
    "AND NOT EXISTS (SELECT 1 FROM task_instance t WHERE t.dag_run_id = p.id "
    "AND t.task_id = w.task_id AND t.state NOT IN ('success', 'skipped')) "
    "ORDER BY p.logical_date DESC LIMIT 1), -9000000000000000000)"
)
_NOTE = Sql(
    "INSERT INTO sla_miss (task_id, dag_id, logical_date, timestamp) "
    "SELECT w.task_id, CAST(:dag_id AS varchar), r.logical_date, CAST(:now AS bigint) "
    "FROM {rows:w | task_id text, sla_us bigint} "
    "JOIN dag_run r ON r.dag_id = :dag_id AND r.run_type = 'scheduled' "
    "AND r.interval_end + w.sla_us < :now "
    f"WHERE r.logical_date > {_SINCE} ON CONFLICT DO NOTHING RETURNING task_id"
)
_CLAIM = Sql(
    "UPDATE sla_miss SET notification_sent = {true}, "
    "email_sent = EXISTS (SELECT 1 FROM {rows:m | task_id text} "
    "WHERE m.task_id = sla_miss.task_id) "
    "WHERE dag_id = :dag_id AND NOT notification_sent "
    "RETURNING task_id, logical_date, timestamp"
)
_RUNS = Sql(
    "SELECT id, logical_date FROM dag_run WHERE dag_id = :dag_id AND run_type = 'scheduled' "
    "AND logical_date IN (SELECT r.moment FROM {rows:r | moment bigint})"
)
_BLOCKING = Sql(
    "SELECT t.task_id, t.map_index, t.state, t.try_number, r.run_id, r.logical_date "
    "FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    "WHERE r.id IN (SELECT m.id FROM {rows:m | id bigint}) "
    "AND t.state NOT IN ('success', 'skipped', 'removed') "
    "ORDER BY r.logical_date, t.id LIMIT :limit"
)
_LISTED = Sql(
    "SELECT dag_id, task_id, logical_date, timestamp, email_sent, notification_sent "
    "FROM sla_miss WHERE (CAST(:dag_id AS text) IS NULL OR dag_id = :dag_id) "
    "ORDER BY timestamp DESC, dag_id, logical_date, task_id"
)


def active_versions(tx: Tx) -> dict[str, int]:
    """The present version of each DAG that is not paused."""
    return {row.dag_id: row.version_id for row in tx.all(_ACTIVE)}


def versions_with_sla(tx: Tx, version_ids: Iterable[int]) -> dict[int, str]:
    """Those of these versions that have a task with an ``sla``, as JSON."""
    rows = tx.rows([{"id": id_} for id_ in version_ids])
    return {row.id: row.data for row in tx.all(_WITH_SLA, rows=rows, pattern='%"sla_us":%')}


def note_misses(tx: Tx, dag_id: str, slas: Mapping[str, int], now: int) -> int:
    """Store what is missed and was not yet; gives how many (S100, S101, S105).

    Args:
        tx: the transaction.
        dag_id: whose scheduled runs to look at.
        slas: microseconds by task id, from the end of a run's data interval.
        now: the wall clock.
    """
    rows = [{"task_id": task_id, "sla_us": sla} for task_id, sla in slas.items()]
    return len(tx.all(_NOTE, dag_id=dag_id, now=now, rows=tx.rows(rows)))


def claim_untold(tx: Tx, dag_id: str, mailed: Iterable[str]) -> list[Miss]:
    """Take the misses that nobody was told of; each is given once, to one scheduler (S103).

    Args:
        tx: the transaction in which somebody is told.
        dag_id: whose.
        mailed: the tasks of which a mail tells.
    """
    rows = tx.rows([{"task_id": task_id} for task_id in mailed])
    found = tx.all(_CLAIM, dag_id=dag_id, rows=rows)
    if not found:
        return []
    moments = tx.rows([{"moment": moment} for moment in {row.logical_date for row in found}])
    keys = {row.logical_date: row.id for row in tx.all(_RUNS, dag_id=dag_id, rows=moments)}
    misses = [
        Miss(row.task_id, row.logical_date, row.timestamp, keys[row.logical_date])
        for row in found
        if row.logical_date in keys
    ]
    return sorted(misses, key=lambda miss: (miss.logical_date, miss.task_id))


def blocking(tx: Tx, run_keys: Iterable[int], limit: int) -> list[Blocking]:
    """Task instances of these runs that have not succeeded, at most ``limit``."""
    rows = tx.rows([{"id": key} for key in sorted(set(run_keys))])
    return [Blocking._make(row) for row in tx.all(_BLOCKING, rows=rows, limit=limit)]


def sla_miss_rows(tx: Tx, dag_id: str | None) -> Sequence[Any]:
    """Every miss, newest first; None: of all DAGs."""
    return tx.all(_LISTED, dag_id=dag_id)
