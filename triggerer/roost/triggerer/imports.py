"""Imports of triggers' code that block, take long, or end their runner: whose they are (D5, D20).

A runner knows for whom it imports; that the others who need the same file wait as well, the
database tells. An import that ends its runner, beyond doubt, is a strike for all of them. One that
has ended by itself is none, however long it was: it is over, once in that runner.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from roost.models.queries import triggers
from roost.triggerer.database import Database
from roost.triggerer.messages import Blocked

__all__ = ["Imports"]


class Imports:
    """What is still to be told of imports, until somebody has the time to ask the database.

    Args:
        job_id: of the incarnation whose triggers they are.
        on_told: takes each note, with its label, and how many more need that code.
    """

    def __init__(
        self,
        database: Database,
        job_id: int,
        on_told: Callable[[Blocked, int], None],
    ) -> None:
        self._db = database
        self._job_id = job_id
        self._on_told = on_told
        self._notes: list[Blocked] = []
        self._deaths: list[tuple[int, str]] = []

    def put(self, note: Blocked) -> None:
        """An import takes long, or is over."""
        self._notes.append(note)

    def died(self, trigger_id: int, how: str) -> None:
        """A runner has ended by the import of the code of this trigger, beyond doubt."""
        self._deaths.append((trigger_id, how))

    async def accused(self) -> list[triggers.Strike]:
        """What is against whom since the last call; strikes for those only that end a runner."""
        notes, self._notes = self._notes, []
        deaths, self._deaths = self._deaths, []
        found: list[triggers.Strike] = []
        for note in notes:
            found += await self._slow(note)
        for trigger_id, how in deaths:
            needs = await self._needing(trigger_id)
            found += [triggers.Strike(key, epoch, 1, how) for key, epoch in needs.items()]
        return found

    async def _slow(self, note: Blocked) -> list[triggers.Strike]:
        trigger_id, seconds = note.trigger_id or 0, note.blocked_us / 1e6
        await self.label(note)
        needs = await self._needing(trigger_id)
        waiting = set() if note.over else needs.keys() - {trigger_id}
        self._on_told(note, len(waiting))
        verb = "took" if note.over else "takes"
        trouble = f"the import of its code {verb} {seconds:.2f} s, at {note.where}"
        return [triggers.Strike(key, epoch, 0, trouble) for key, epoch in needs.items()]

    async def label(self, note: Blocked) -> None:
        """Put into a note whose its trigger is, where that is still to be had."""
        if note.label or note.trigger_id is None:
            return
        labels = partial(triggers.labels, trigger_ids=[note.trigger_id])
        for label in (await self._db.reading(labels)).values():
            note.label, note.dag_id, note.task_id = label

    async def _needing(self, trigger_id: int) -> dict[int, int]:
        needs = partial(triggers.of_same_code, job_id=self._job_id, trigger_id=trigger_id)
        return await self._db.reading(needs)
