"""Room for active runs: ``max_active_runs`` of a DAG, and that of each backfill (H12, H21)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from roost.models.queries import backfills, runs
from roost.models.queries.runs import RunRow
from roost.scheduler.turn import Turn

__all__ = ["Rooms", "count_runs", "lock_room"]


class _Run(Protocol):
    """What decides which limit counts a run."""

    @property
    def dag_id(self) -> str: ...

    @property
    def backfill_id(self) -> int | None: ...


class Rooms:
    """What room there is for runs that wait; every limit locked to the end of the turn."""

    def __init__(self, turn: Turn, waiting: Sequence[RunRow]) -> None:
        # DAGs are locked for runs of backfills too: it keeps all schedulers in one order.
        self._dags = runs.lock_run_slots(turn.tx, {row.dag_id for row in waiting})
        ids = {row.backfill_id for row in waiting if row.backfill_id is not None}
        self._backfills = backfills.lock_room(turn.tx, ids) if ids else {}

    def order(self, row: RunRow) -> tuple[int, int]:
        """Sorts runs: by logical date, from the last to the first in a reversed backfill."""
        date = row.run_after if row.logical_date is None else row.logical_date
        backfill = self._backfills.get(row.backfill_id or 0)
        return (-date if backfill is not None and backfill.is_reversed else date, row.id)

    def take(self, row: RunRow) -> bool:
        """Whether this run may start; if so its room is gone."""
        if row.backfill_id is None:
            room = self._dags.get(row.dag_id, 0)
            self._dags[row.dag_id] = room - (room > 0)
            return room > 0
        backfill = self._backfills.get(row.backfill_id)
        if backfill is None or backfill.room <= 0:
            return False
        self._backfills[row.backfill_id] = backfill._replace(room=backfill.room - 1)
        return True


def lock_room(turn: Turn, ending: list[str]) -> None:
    """Lock the limits of DAGs whose runs end, and of those that may start one for it, in one
    order: schedulers cannot deadlock."""
    runs.lock_run_slots(turn.tx, {*ending, *(row.dag_id for row in turn.book.queued.values())})


def count_runs(turn: Turn, moved: Iterable[_Run], step: int) -> None:
    """Count runs in (step 1) or out (-1) of their DAG's limit; a backfill's are not counted
    there, and their own limit is counted from the runs themselves."""
    changes = Counter(run.dag_id for run in moved if run.backfill_id is None)
    runs.change_run_slots(turn.tx, {dag_id: step * n for dag_id, n in changes.items()})
