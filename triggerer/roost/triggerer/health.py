"""What is seen of one runner from its supervisor's side: its pulse, its memory, who blocks it."""

from __future__ import annotations

from roost.triggerer.messages import Blocked
from roost.triggerer.places import UNSEEN
from roost.triggerer.pulse import Pulse, memory_mb, sample

__all__ = ["Health"]


class Health:
    """What is wrong with a runner, and whose doing that is.

    Args:
        most_mb: MiB that it may grow by; 0: as many as there are.

    Attributes:
        fate: why it is killed, in words; empty while it is not.
        swollen: it is killed for its memory: whose step it is in says nothing.
        blocking: the trigger that keeps its loop from turning.
    """

    def __init__(self, most_mb: int) -> None:
        self._most_mb = most_mb
        self._empty_mb = 0.0
        self.pulse = Pulse()
        self.fate = ""
        self.swollen = False
        self.blocking: Blocked | None = None
        # Where they block, of those triggers that we have told of before the watchdog could, and
        # whether they do so in the import of their code.
        self._told: dict[tuple[int | None, bool], str] = {}

    def weighed(self, empty_mb: float) -> None:
        """It tells its memory before it had a trigger; 0: it has told it before."""
        self._empty_mb = self._empty_mb or empty_mb

    def look(self, pid: int) -> bool:
        """Look at its process; True: it hangs, or has grown too much, and is to be killed.

        How a hang is told from a busy machine: :mod:`roost.triggerer.pulse`.
        """
        trouble = self.pulse.look(sample(pid)) or self._growth(pid)
        if trouble is None:
            return False
        self.fate = f"was killed because {trouble}"
        return True

    def _growth(self, pid: int) -> str | None:
        """What is wrong with its memory, in words; None while nothing is."""
        if not self._empty_mb or not self._most_mb:
            return None
        used = memory_mb(pid)
        if used - self._empty_mb <= self._most_mb:
            return None
        self.swollen = True
        return (
            f"it had grown to {used:.0f} MiB, {used - self._empty_mb:.0f} more than when it was "
            f"empty (triggerer.runner_memory_mb = {self._most_mb})"
        )

    def noted(self, note: Blocked) -> bool:
        """Its watchdog tells of a block; False: nothing new.

        The watchdog learns of what held the GIL when that is over: we have told of it then.
        """
        key = note.trigger_id, note.importing
        place = self._told.get(key)
        if place is not None and note.where == UNSEEN:
            note.where = place
        self._keep(note)
        if note.over:
            self._told.pop(key, None)
        return note.over or place is None

    def _keep(self, note: Blocked) -> None:
        """Note who keeps the loop from turning; an import does so only while it holds the GIL."""
        if note.over and note.importing:
            if self.blocking is not None and self.blocking.importing:
                self.blocking = None
        elif not note.importing:
            self.blocking = None if note.over else note

    def was_told(self, trigger_id: int, importing: bool) -> bool:
        """Whether this block was told of: a signal ends a sleep in C before its time."""
        return (trigger_id, importing) in self._told

    def held(self, note: Blocked) -> None:
        """We have seen ourselves who holds the GIL."""
        self.blocking = note
        self._told[note.trigger_id, note.importing] = note.where
