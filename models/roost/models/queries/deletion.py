"""Deleting a DAG with all that is known of it."""

from __future__ import annotations

from roost.models.engine import Sql, Tx
from roost.models.queries import watchers

__all__ = ["active_runs", "count_rows", "delete_dag", "lock_dag"]

_LOCK = Sql("SELECT dag_id FROM dag WHERE dag_id = :dag_id {for_update}")
_ACTIVE = Sql(
    "SELECT run_id FROM dag_run WHERE dag_id = :dag_id AND end_date IS NULL "
    "ORDER BY id {for_update}"
)
_COUNTS = Sql(
    "SELECT (SELECT count(*) FROM dag_run WHERE dag_id = :dag_id) AS runs, "
    "(SELECT count(*) FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    "WHERE r.dag_id = :dag_id) AS task_instances"
)
_RUNS = "SELECT r.id FROM dag_run r WHERE r.dag_id = :dag_id"
_INSTANCES = (
    "SELECT t.id FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    "WHERE r.dag_id = :dag_id"
)
_FILE = "SELECT d.fileloc FROM dag d WHERE d.dag_id = :dag_id"
# With a run go its task instances, XComs, triggers, dispatches and deadlines.
_DELETE = [
    Sql(statement)
    for statement in (
        f"DELETE FROM event_log WHERE ti_id IN ({_INSTANCES})",
        f"DELETE FROM event_log WHERE ti_id IS NULL AND dag_run_id IN ({_RUNS})",
        f"DELETE FROM dispatch WHERE ti_id IS NULL AND dag_run_id IN ({_RUNS})",
        "DELETE FROM dag_run WHERE dag_id = :dag_id",
        "DELETE FROM asset_watcher WHERE dag_id = :dag_id",
        "DELETE FROM backfill WHERE dag_id = :dag_id",
        "DELETE FROM sla_miss WHERE dag_id = :dag_id",
        "DELETE FROM task_usage WHERE dag_id = :dag_id",
        "DELETE FROM dag_usage WHERE dag_id = :dag_id",
        # Its file is parsed again, and defines it anew if it still does.
        f"UPDATE dag_file SET stamp = '' WHERE fileloc IN ({_FILE})",
        "DELETE FROM dag WHERE dag_id = :dag_id",
    )
]


def count_rows(tx: Tx, dag_id: str) -> tuple[int, int]:
    """How many runs and task instances a DAG has."""
    row = tx.first(_COUNTS, dag_id=dag_id)
    assert row is not None  # noqa: S101 - it is made of counts
    return int(row.runs), int(row.task_instances)


def lock_dag(tx: Tx, dag_id: str) -> None:
    """Keep others from giving the DAG a run."""
    tx.all(_LOCK, dag_id=dag_id)


def active_runs(tx: Tx, dag_id: str) -> list[str]:
    """The runs of a DAG that have not ended, locked."""
    return [row.run_id for row in tx.all(_ACTIVE, dag_id=dag_id)]


def delete_dag(tx: Tx, dag_id: str) -> None:
    """Delete a DAG, its runs, and what is known of them. Its versions stay: daemons remember
    them by their ids, which must never mean another."""
    for statement in _DELETE:
        tx.run(statement, dag_id=dag_id)
    watchers.sync(tx)
