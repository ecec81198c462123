"""What a simulation tells of its runs."""

from __future__ import annotations

from collections.abc import Sequence

from roost.models.engine import Sql, Tx
from roost.models.sql import Row

__all__ = [
    "instances",
    "last_reason",
    "moves",
    "newest_version",
    "run",
    "run_keys",
    "unfinished",
    "xcom",
]

_RUN = Sql(
    "SELECT id, dag_id, run_id, run_type, state, logical_date, interval_start, interval_end, "
    "start_date, end_date FROM dag_run WHERE id = :key"
)
_RUNS = Sql("SELECT id FROM dag_run WHERE dag_id = :dag_id ORDER BY logical_date, id")
_INSTANCES = Sql(
    "SELECT id, task_id, map_index, state, try_number, start_date, end_date "
    "FROM task_instance WHERE dag_run_id = :key ORDER BY id"
)
_REASON = Sql(
    "SELECT reason FROM event_log WHERE ti_id = :ti_id AND reason IS NOT NULL "
    "ORDER BY ti_version DESC LIMIT 1"
)
_MOVES = Sql("SELECT event FROM event_log WHERE ti_id = :ti_id ORDER BY ti_version")
_XCOM = Sql("SELECT value FROM xcom WHERE ti_id = :ti_id AND key = :key")
_VERSION = Sql("SELECT version_id FROM dag WHERE dag_id = :dag_id")
_UNFINISHED = Sql("SELECT id FROM dag_run WHERE end_date IS NULL LIMIT 1")


def run(tx: Tx, key: int) -> Row:
    """The row of a run."""
    row = tx.first(_RUN, key=key)
    assert row is not None, "a run that was simulated is there"  # noqa: S101
    return row


def run_keys(tx: Tx, dag_id: str) -> list[int]:
    """The runs of a DAG, by logical date."""
    return [row.id for row in tx.all(_RUNS, dag_id=dag_id)]


def instances(tx: Tx, key: int) -> Sequence[Row]:
    """The task instances of a run."""
    return tx.all(_INSTANCES, key=key)


def last_reason(tx: Tx, ti_id: int) -> str | None:
    """The last reason that the log gives for a move."""
    reason: str | None = tx.scalar(_REASON, ti_id=ti_id)
    return reason


def moves(tx: Tx, ti_id: int) -> list[str]:
    """The events of a task instance in order."""
    return [row.event for row in tx.all(_MOVES, ti_id=ti_id)]


def xcom(tx: Tx, ti_id: int, key: str) -> str | None:
    """An XCom's JSON text."""
    value: str | None = tx.scalar(_XCOM, ti_id=ti_id, key=key)
    return value


def newest_version(tx: Tx, dag_id: str) -> int | None:
    """The version of a DAG that new runs get."""
    version: int | None = tx.scalar(_VERSION, dag_id=dag_id)
    return version


def unfinished(tx: Tx) -> bool:
    """Whether any run has not ended."""
    return tx.first(_UNFINISHED) is not None
