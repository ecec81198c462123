"""How the same tasks ended in the previous run of a DAG (S23, S89)."""

from __future__ import annotations

from typing import Any

from roost.models.engine import Sql, Tx

__all__ = ["previous_run", "previous_success", "states"]

_PREVIOUS = Sql(
    "SELECT p.id, p.state FROM dag_run r JOIN dag_run p "
    "ON p.dag_id = r.dag_id AND p.logical_date < r.logical_date "
    "WHERE r.id = :run_key ORDER BY p.logical_date DESC, p.id DESC LIMIT 1"
)
_SUCCESS = Sql(
    "SELECT run_id, state, logical_date, interval_start, interval_end, start_date, end_date "
    "FROM dag_run WHERE dag_id = :dag_id AND logical_date < :before AND state = 'success' "
    "ORDER BY logical_date DESC LIMIT 1"
)
_STATES = Sql("SELECT DISTINCT task_id, state FROM task_instance WHERE dag_run_id = :run_key")


def previous_run(tx: Tx, run_key: int) -> tuple[int, str] | None:
    """Key and state of the run with the greatest logical date before this one's (S89).

    None for the first run, and for one without a logical date.
    """
    found = tx.first(_PREVIOUS, run_key=run_key)
    return None if found is None else (found.id, found.state)


def previous_success(tx: Tx, dag_id: str, before: int) -> Any | None:
    """The newest successful run of a DAG with a logical date before this moment."""
    return tx.first(_SUCCESS, dag_id=dag_id, before=before)


def states(tx: Tx, run_key: int) -> dict[str, set[str]]:
    """States by task id: one, or those of all instances of a mapped task."""
    found: dict[str, set[str]] = {}
    for row in tx.all(_STATES, run_key=run_key):
        found.setdefault(row.task_id, set()).add(row.state)
    return found
