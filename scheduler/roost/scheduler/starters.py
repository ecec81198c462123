"""Who waits to start in its trigger (D12): no executor slot is taken, nor a limit of what runs.

Pure, as :mod:`roost.scheduler.ready` is, whose line these do not stand in. In a pool that counts
deferred tasks they need their part of its slots. There they let those of its line go first who
are of more weight, but not for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from roost.models.slots import share
from roost.scheduler.book import ActiveRun
from roost.scheduler.ready import Candidate

__all__ = ["Starter", "Starters"]


class Starter(NamedTuple):
    """A waiting task instance; compares by who goes first."""

    rank: int  # negative effective weight
    logical_date: int
    run_serial: int
    task: int  # index on the run's board
    run: ActiveRun
    since: int  # microseconds
    pool: str
    need: int  # of the pool, in hundredths of slots


class Starters:
    """All of them in the runs that this scheduler owns."""

    def __init__(self) -> None:
        self._runs: dict[ActiveRun, dict[int, int]] = {}  # since when, by index

    def add(self, run: ActiveRun, index: int, now: int) -> None:
        """Let a task instance wait for its trigger."""
        self._runs.setdefault(run, {})[index] = now

    def take(
        self,
        holding: Mapping[str, int],
        room: dict[str, int],
        first: Callable[[str], Candidate | None],
        patient_until: int,
    ) -> list[Starter]:
        """Those that may start, best first; they wait no longer.

        Args:
            holding: pools that count deferred tasks, in per cent of their slots.
            room: free hundredths of slots by pool; what they take is taken off.
            first: who is the first in the line of a pool.
            patient_until: who waits since before this moment goes before the line.
        """
        taken = []
        for one in sorted(self._going(holding)):
            if one.need:
                free = room.get(one.pool, 0)
                ahead = first(one.pool)
                if ahead is not None and ahead.rank < one.rank and one.since >= patient_until:
                    free -= ahead.need
                if one.need > free:
                    continue
                room[one.pool] -= one.need
            del self._runs[one.run][one.task]
            taken.append(one)
        return taken

    def pools(self, holding: Mapping[str, int]) -> set[str]:
        """Pools whose room must be known."""
        return {one.pool for one in self._going(holding) if one.need} if holding else set()

    def waiting(self) -> bool:
        """Whether anybody could go, if there were room."""
        return any(True for _ in self._going({}))

    def _going(self, holding: Mapping[str, int]) -> Iterator[Starter]:
        for run in [run for run, found in self._runs.items() if not run.alive or not found]:
            del self._runs[run]
        for run, found in self._runs.items():
            if run.paused:
                continue
            for index in [index for index in found if index not in run.waiting]:
                del found[index]  # skipped, or moved by others
            for index, since in found.items():
                task = run.board.tasks[index]
                need = share(task.pool_slots, holding.get(task.pool, 0))
                rank = -run.board.weights[index]
                yield Starter(
                    rank, run.logical_date, run.serial, index, run, since, task.pool, need
                )
