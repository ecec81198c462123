"""Deadlines of runs: when each is due, and which were missed (H22)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = ["Deadline", "create", "meet", "miss", "pending"]


class Deadline(NamedTuple):
    """One deadline of a run; ``position`` in its DAG's list, ``due_at`` in microseconds."""

    dag_run_id: int
    position: int
    due_at: int


# The mean of the last ten runs that succeeded, of any type.
_MEAN = (
    "(SELECT CAST(avg(p.end_date - p.start_date) AS bigint) FROM (SELECT o.end_date, o.start_date "
    "FROM dag_run o WHERE o.dag_id = r.dag_id AND o.state = 'success' "
    "AND o.start_date IS NOT NULL ORDER BY o.logical_date DESC LIMIT 10) p)"
)
_CREATE = Sql(
    "INSERT INTO deadline (dag_run_id, position, due_at) "
    "SELECT d.id, d.position, d.due_at FROM (SELECT r.id, w.position, w.interval_us + "
    "CASE w.reference WHEN 'logical_date' THEN r.logical_date WHEN 'queued_at' THEN r.queued_at "
    f"WHEN 'fixed' THEN w.moment ELSE r.queued_at + {_MEAN} END AS due_at "
    "FROM {rows:w | run bigint, position integer, reference text, interval_us bigint, "
    "moment bigint} JOIN dag_run r ON r.id = w.run) d "
    "WHERE d.due_at IS NOT NULL ON CONFLICT DO NOTHING RETURNING dag_run_id"
)
_PENDING = Sql(
    "SELECT dag_run_id, position, due_at FROM deadline "
    "WHERE dag_run_id IN (SELECT w.run FROM {rows:w | run bigint}) "
    "AND missed_at IS NULL AND met_at IS NULL"
)
_MISS = Sql(
    "UPDATE deadline SET missed_at = :now WHERE missed_at IS NULL AND met_at IS NULL "
    "AND due_at <= :now AND dag_run_id IN (SELECT w.run FROM {rows:w | run bigint}) "
    "AND EXISTS (SELECT 1 FROM dag_run r WHERE r.id = dag_run_id AND r.end_date IS NULL) "
    "RETURNING dag_run_id, position, due_at"
)
_MEET = Sql(
    "UPDATE deadline SET met_at = :now WHERE missed_at IS NULL AND met_at IS NULL "
    "AND dag_run_id IN (SELECT w.run FROM {rows:w | run bigint})"
)


def create(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write deadlines that are not there yet; gives how many.

    Args:
        tx: the transaction.
        rows: ``run``, ``position``, ``reference``, ``interval_us`` and ``moment`` (of ``fixed``).
    """
    return len(tx.all(_CREATE, rows=tx.rows(rows)))


def pending(tx: Tx, run_keys: Iterable[int]) -> list[Deadline]:
    """Deadlines of these runs that were neither missed nor met."""
    return [Deadline._make(row) for row in tx.all(_PENDING, rows=_runs(tx, run_keys))]


def miss(tx: Tx, run_keys: Iterable[int], now: int) -> list[Deadline]:
    """Mark what is due by ``now`` in those of the runs that have not ended; each is given once."""
    found = tx.all(_MISS, rows=_runs(tx, run_keys), now=now)
    return sorted(Deadline._make(row) for row in found)


def meet(tx: Tx, run_keys: Iterable[int], now: int) -> int:
    """The runs ended before these moments; gives how many. They never alert any more."""
    return tx.run(_MEET, rows=_runs(tx, run_keys), now=now)


def _runs(tx: Tx, run_keys: Iterable[int]) -> str:
    return tx.rows([{"run": key} for key in sorted(set(run_keys))])
