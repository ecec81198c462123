"""Finds who ends runners, where nobody was surely seen at it (D5, D20).

A signal can come from anywhere: from the trigger in whose step the runner ended, from a thread or a
child process of another one, from a user, from a kernel without memory. Whose step it met says
little. So suspects are tried in the runner apart, and one is found guilty only of ends of a
process in which **nobody else has ever been**: of :data:`KILLS` of these in a row where a signal
ended it, of one where none did (it hung, or grew).

What this guarantees: a trigger that does nothing is not struck by what other triggers do, their
children included, nor by fewer than :data:`KILLS` signals from outside that meet it while it is
alone. More of these cannot be told from its own doing. Each strike needs as many again.

What it costs, in ends of runners until a culprit has its third strike: at most 1 + 3 *
:data:`KILLS` for one that is seen in its step, and as many and the logarithm of how many run for
one that is not, where nobody's step misleads; all but the search of these in a runner that holds
nobody else. One more each time that the runner apart has held others before.

Pure: no clock, no database, no process.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Set
from typing import NamedTuple

__all__ = ["KILLS", "PATIENCE", "End", "Suspects"]

KILLS = 2
"""So many signals must have ended a runner that only one trigger was in, before it is struck."""

PATIENCE = 2
"""How often the other runner may end before who is tried alone is let go.

Of two culprits, the one that is tried ends its runner in that time; were it let go at once, they
could keep each other from being found for ever.
"""


class End(NamedTuple):
    """The end of a runner that may have been a trigger's doing.

    Attributes:
        running: who was in it.
        apart: it was the runner of suspects and of those with strikes.
        unit: who was executing, with those that do all that it does; else anybody who was there,
            with those.
        seen: the unit was executing.
        fresh: nobody but the unit was ever in that process.
        outside: a signal ended it: it can have come from anywhere.
    """

    running: Set[int]
    apart: bool
    unit: Set[int]
    seen: bool
    fresh: bool
    outside: bool


class Suspects:
    """Who is suspected, who of these is tried apart, and what was seen of them.

    The suspects are halved: each end of a runner tells which half it was, if there is one culprit.
    Who was executing is tried alone instead, as long as that has not misled too often.

    Args:
        rng: chooses halves.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - to be fair, not to hide
        #: Those that run apart for now.
        self.apart: set[int] = set()
        self._among: set[int] = set()  # one of these did it, as far as is known
        self._alone = False  # those apart are one unit
        self._guessed = False  # they are there because they were seen
        self._patience = 0
        self._several = False  # a search has ended nowhere: there is more than one culprit
        self._ends: Counter[int] = Counter()  # in a row, of a process that only they were in
        self._seen: Counter[int] = Counter()  # how often they were executing, in this search
        self._cleared: set[int] = set()  # tried because they were seen, and it was another one
        self._misled = 0  # how often that was so

    def died(self, end: End) -> set[int]:
        """A runner has ended.

        Returns:
            Who is guilty of it beyond doubt, mostly nobody. :attr:`apart` says who is tried next.
        """
        if end.seen:
            self._seen.update(end.unit)
        if end.apart and end.running <= end.unit:
            return self._ended_alone(end)
        if end.apart:
            among = set(end.running)  # the runner apart has nobody else
        elif self.apart and self._patience > 0:
            self._patience -= 1
            return set()
        else:
            self._let_go()
            among = (self._among & end.running) or set(end.running)
        if self._is_worth_a_try(end):
            self._try(among, end.unit & end.running, guessed=True)
        else:
            self._try(among, self._rng.sample(sorted(among), (len(among) + 1) // 2))
        return set()

    def keep(self, held: Mapping[int, int]) -> None:
        """Forget every trigger that is not held any more."""
        self.apart &= held.keys()
        self._among &= held.keys()
        self._cleared &= held.keys()
        for counts in (self._ends, self._seen):
            for trigger_id in counts.keys() - held.keys():
                del counts[trigger_id]

    def _ended_alone(self, end: End) -> set[int]:
        tried = set(end.running)
        self._try(tried, tried, alone=True)
        if not end.fresh:  # a child process of who was there before may have done it
            return set()
        self._ends.update(tried)
        if min(self._ends[one] for one in tried) < (KILLS if end.outside else 1):
            return set()
        self._ends.clear()
        self._forget_search()
        return tried

    def _is_worth_a_try(self, end: End) -> bool:
        """Whether to try who was executing: one of many is so by chance, now and then."""
        if not end.seen or not end.unit & end.running or end.unit & self._cleared:
            return False
        return all(self._seen[one] > self._misled for one in end.unit)

    def _try(
        self, among: set[int], tried: Set[int] | list[int], *, alone: bool = False,
        guessed: bool = False,
    ) -> None:  # fmt: skip
        # Where the next runner ends, the intersection with its triggers leaves the right half.
        self._among, self.apart = among, set(tried)
        self._guessed = guessed
        self._alone = alone or guessed or self.apart == among
        self._patience = PATIENCE if self._alone else int(self._several)
        for trigger_id in self._ends.keys() - self.apart:
            del self._ends[trigger_id]

    def _let_go(self) -> None:
        """It was none of those apart, or not only these."""
        if not self.apart or not self._alone:
            return
        if self._guessed:
            self._misled += 1
            self._cleared |= self.apart
        else:
            self._several = True

    def _forget_search(self) -> None:
        self._seen.clear()
        self._cleared.clear()
        self._misled = 0
        self._several = False
