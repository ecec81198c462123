"""Following the event log: what moved since the last look."""

from __future__ import annotations

from typing import Any

from roost.models.engine import Sql, Tx

__all__ = ["EventTail"]

# PostgreSQL commits transactions in another order than they took their ids in. A row that
# appears within so many ids behind the newest one is still found.
_WINDOW = 500

_NEWEST = Sql("SELECT coalesce(max(id), 0) FROM event_log")
_EVENTS = Sql(
    "SELECT e.id, e.at, e.event, e.to_state, e.try_number, e.reason, e.dag_run_id, e.ti_id, "
    "i.task_id, i.map_index, r.dag_id, r.run_id FROM event_log e "
    "LEFT JOIN task_instance i ON i.id = e.ti_id LEFT JOIN dag_run r ON r.id = e.dag_run_id "
    "WHERE e.id > :after AND (CAST(:run_key AS bigint) IS NULL OR e.dag_run_id = :run_key) "
    "ORDER BY e.id"
)


class EventTail:
    """The events from now on, each once and mostly in order.

    Attributes:
        run_key: only this run's; made before the run is created, the tail misses none of them.
    """

    def __init__(self, tx: Tx, run_key: int | None = None) -> None:
        self.run_key = run_key
        self._start = self._last = int(tx.scalar(_NEWEST))
        self._seen: set[int] = set()

    def new(self, tx: Tx) -> list[Any]:
        """The events since the last call, or since the tail was made."""
        window = _WINDOW if tx.dialect == "postgresql" else 0  # SQLite's writer is alone
        after = max(self._start, self._last - window)
        rows = tx.all(_EVENTS, after=after, run_key=self.run_key)
        new = [row for row in rows if row.id not in self._seen]
        if new:
            self._last = max(self._last, new[-1].id)
            self._seen = {row.id for row in rows if row.id > self._last - window}
        return new
