"""Finding the runs that a user's edit is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = ["SelectedRun", "failed_of_backfill", "runs_between", "runs_named"]


class SelectedRun(NamedTuple):
    """A run that may be edited."""

    id: int
    dag_id: str
    run_id: str
    run_type: str
    state: str
    logical_date: int | None


_COLUMNS = ", ".join(SelectedRun._fields)
_BETWEEN = Sql(
    f"SELECT {_COLUMNS} FROM dag_run WHERE dag_id = :dag_id "
    "AND (CAST(:start AS bigint) IS NULL OR coalesce(logical_date, run_after) >= :start) "
    "AND (CAST(:end AS bigint) IS NULL OR coalesce(logical_date, run_after) <= :end) "
    "ORDER BY coalesce(logical_date, run_after), id"
)
_NAMED = Sql(
    f"SELECT {_COLUMNS} FROM dag_run WHERE dag_id = :dag_id "
    "AND run_id IN (SELECT r.run_id FROM {rows:r | run_id text}) ORDER BY id"
)


_FAILED = Sql(
    "SELECT run_id FROM dag_run WHERE backfill_id = :id AND state = 'failed' "
    "ORDER BY logical_date, id"
)


def failed_of_backfill(tx: Tx, backfill_id: int) -> list[str]:
    """The ids of the failed runs of a backfill, by logical date."""
    return [row.run_id for row in tx.all(_FAILED, id=backfill_id)]


def runs_between(tx: Tx, dag_id: str, start: int | None, end: int | None) -> list[SelectedRun]:
    """Runs by logical date (without one: by when they were due), both ends included."""
    return [SelectedRun._make(row) for row in tx.all(_BETWEEN, dag_id=dag_id, start=start, end=end)]


def runs_named(tx: Tx, dag_id: str, run_ids: Iterable[str]) -> list[SelectedRun]:
    """Runs by their ids; those that do not exist are absent."""
    rows = tx.rows([{"run_id": run_id} for run_id in run_ids])
    return [SelectedRun._make(row) for row in tx.all(_NAMED, dag_id=dag_id, rows=rows)]
