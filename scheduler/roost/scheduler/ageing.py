"""Ageing: whoever is passed over too long goes next, and slots are kept for it (H4, H5). Pure.

Priority decides who goes first, so without a bound a task that needs several slots, or a run of
low weight, may be passed for ever by what comes later. Here every pool has at most one *elder*.
It is named when someone has waited for :attr:`Ages.after_us` and :data:`PASSES` others have gone
meanwhile: by turns the first of the run that has gone without the longest, and whoever has waited
longest of all. It goes before everybody else, and while it does not fit, its pool lets nobody
else in. Then the count begins anew: ten in eleven still go by priority.

The bound: with ``k`` older ones in its pool, a candidate that may go at all is passed, once it
has waited ``after_us``, by at most ``2 * (k + 1) * (PASSES + n)`` others of the pool, ``n`` being
how many go in one turn; and the first of a run by as many with ``k`` other runs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from roost.support.clock import SECOND

if TYPE_CHECKING:
    from roost.scheduler.book import ActiveRun
    from roost.scheduler.ready import Candidate

__all__ = ["PASSES", "Ages", "Waiter"]

PASSES = 10
"""So many others go, at least, between two elders of a pool."""

_LOOKED_AT = 50  # of one run, for one that may go


class Waiter(NamedTuple):
    """A candidate, and since when it waits: in microseconds, and by number of those that went."""

    since: int
    number: int
    candidate: Candidate


class _Queue:
    """Those of one run that wait for one pool, the oldest first; some may have gone."""

    __slots__ = ("run", "served", "waiters")

    def __init__(self, run: ActiveRun) -> None:
        self.run = run
        self.served = 0  # which of those that went was its last
        self.waiters: deque[Waiter] = deque()


class Ages:
    """Since when everybody waits, by pool and run, and who is the elder of each pool."""

    def __init__(self) -> None:
        self.now = 0
        self.after_us = 60 * SECOND
        self.elders: dict[str, Waiter] = {}
        self._queues: dict[str, dict[int, _Queue]] = {}  # by pool, by serial of the run
        self._room: dict[str, int] = {}  # so many queues before the dead ones are thrown out
        self._known: dict[tuple[int, int], Waiter] = {}  # by serial and index
        self._went = 0
        self._passed: Counter[str] = Counter()
        self._by_run: dict[str, bool] = {}

    def enter(self, candidate: Candidate) -> None:
        """Note that a candidate begins to wait."""
        run, pool = candidate.run, candidate.pool
        waiter = Waiter(self.now, self._went, candidate)
        self._known[run.serial, candidate.task] = waiter
        queues = self._queues.setdefault(pool, {})
        queue = queues.get(run.serial)
        if queue is None:
            if len(queues) >= self._room.get(pool, 64):
                self._throw_out(pool)
            queue = queues[run.serial] = _Queue(run)
        queue.waiters.append(waiter)

    def leave(self, candidate: Candidate) -> None:
        """Note that it goes."""
        run, pool = candidate.run, candidate.pool
        self._known.pop((run.serial, candidate.task), None)
        self._went += 1
        queue = self._queues.get(pool, {}).get(run.serial)
        if queue is not None:
            queue.served = self._went
            self._first(queue)
        elder = self.elders.get(pool)
        if elder is not None and not self.waits(elder):
            del self.elders[pool]

    def waits(self, waiter: Waiter) -> bool:
        """Whether it still waits, since then."""
        run, index = waiter.candidate.run, waiter.candidate.task
        if self._known.get((run.serial, index)) is not waiter:
            return False
        if run.alive and index in run.waiting:
            return True
        del self._known[run.serial, index]
        return False

    def passed(self, pools: Iterable[tuple[str, int]], may_go: Callable[[Candidate], bool]) -> None:
        """Count who has gone, and name elders.

        Args:
            pools: those in which somebody still waits, with how many went before them.
            may_go: whether a candidate could go if there were slots.
        """
        for pool, count in pools:
            if pool in self.elders:
                continue
            self._passed[pool] += count
            if self._passed[pool] >= PASSES:
                self._passed[pool] = 0
                self._name(pool, may_go)

    def _name(self, pool: str, may_go: Callable[[Candidate], bool]) -> None:
        by_run = not self._by_run.get(pool, False)
        late: list[tuple[int, int, Waiter]] = []
        for serial, queue in self._queues.get(pool, {}).items():
            waiter = self._late(queue, may_go)
            if waiter is not None:
                age = max(waiter.number, queue.served) if by_run else waiter.number
                late.append((age, serial, waiter))
        if late:
            self._by_run[pool] = by_run
            self.elders[pool] = min(late, key=lambda one: one[:2])[2]

    def _late(self, queue: _Queue, may_go: Callable[[Candidate], bool]) -> Waiter | None:
        """The oldest of a run that waits too long and could go."""
        if self._first(queue) is None:
            return None
        for waiter, _ in zip(queue.waiters, range(_LOOKED_AT), strict=False):
            if self.now - waiter.since < self.after_us:
                return None
            if self.waits(waiter) and may_go(waiter.candidate):
                return waiter
        return None

    def _first(self, queue: _Queue) -> Waiter | None:
        waiters = queue.waiters
        while waiters and not self.waits(waiters[0]):
            waiters.popleft()
        return waiters[0] if waiters else None

    def _throw_out(self, pool: str) -> None:
        queues = self._queues[pool]
        for serial, queue in list(queues.items()):
            if self._first(queue) is None and not queue.run.alive:
                del queues[serial]
        self._room[pool] = 2 * len(queues) + 64
