"""Who goes next: task instances that may run, in order, under every limit at once.

Pure: no clock, no database. A heap per pool holds candidates by effective priority weight, then
logical date, then order in the DAG (S42-S44, H4); a pool without room never hides another's
candidates. Of one run at most ``max_active_tasks`` stand in each heap: the rest are parked with
the run, so that a run of 10,000 ready tasks costs what fits, not what waits.

Those that come back from a deferral have a lane of their own at the head of every line, whatever
their weight: what has begun is finished before anything new begins. While the first of them does
not fit into its pool, the pool keeps what comes free for it. New ones are not starved for that:
ageing lets one in eleven go before everybody (:mod:`roost.scheduler.ageing`).

Slots of pools are counted in hundredths here (:mod:`roost.models.slots`).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from roost.dag.model import SerializedTask
from roost.models.slots import WHOLE, share
from roost.scheduler.ageing import Ages
from roost.scheduler.book import ActiveRun
from roost.scheduler.gates import Gates, TaskKey, is_limited

__all__ = ["UNLIMITED", "Admitted", "Candidate", "Ready", "lane_of", "need_of"]

UNLIMITED = 1 << 48
"""Room in a pool without limit, in hundredths of slots."""

_MOST_TOO_BIG = 200  # candidates too big for what is left, looked at in one admission
_RESUMED, _NEW = 0, 1


class Candidate(NamedTuple):
    """A waiting task instance; compares by who goes first."""

    lane: int  # 0: comes back from a deferral; 1: begins
    rank: int  # negative effective weight
    logical_date: int
    run_serial: int
    order: int  # index of the task in the run's plan
    task: int  # index on the run's board: of the task, or of one of its mapped instances
    run: ActiveRun
    pool: str
    need: int  # what it takes of its pool besides what it holds of it already
    limited: SerializedTask | None = None  # the task, if it has a limit of its own


class Admitted(NamedTuple):
    """What one admission let through, what it left for want of pool slots, and the pools that keep
    their free slots for somebody who does not fit yet."""

    candidates: list[Candidate]
    starving: dict[str, int]
    kept: Collection[str] = ()


class Ready:
    """All candidates of the runs that this scheduler owns."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[Candidate]] = {}
        self._wanted: Counter[str] = Counter()  # what all in line need, kept up to date
        self._gates = Gates()
        self.ages = Ages()
        self._gone: set[tuple[int, int]] = set()  # in this admission: serial, index

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values())) + len(self._gates)

    @property
    def shared(self) -> Collection[TaskKey]:
        """Tasks of which somebody waits, with a limit over all runs: see :meth:`let_in`."""
        return self._gates.shared

    def let_in(self, room: Mapping[TaskKey, int]) -> None:
        """Let candidates of limited tasks into line; before :meth:`wanted` and :meth:`admit`.

        Args:
            room: how many more of each of :attr:`shared` may be in flight.
        """
        elders = {
            (one.candidate.run.serial, one.candidate.task) for one in self.ages.elders.values()
        }
        self._let_in(self._gates.let_in(room, elders))

    def _let_in(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            self._push(candidate)

    def add(self, run: ActiveRun, index: int) -> None:
        """Let a task instance that its run's board scheduled stand in line."""
        board = run.board
        task = board.tasks[index]
        pool = task.pool
        candidate = Candidate(
            lane_of(run, index),
            -board.weights[index],
            run.logical_date,
            run.serial,
            board.origin[index],
            index,
            run,
            pool,
            need_of(run, index),
        )
        if is_limited(task):
            candidate = candidate._replace(limited=task)
        self.ages.enter(candidate)
        if candidate.limited is not None:
            self._gates.hold(candidate)
            return
        heapq.heappush(run.parked.setdefault(pool, []), candidate)
        self.unpark(run)

    def unpark(self, run: ActiveRun) -> None:
        """Bring as many of a run's parked candidates into line as its limit has room for.

        As many for each pool: those that wait for a full one must not hide the others. And
        whoever ranks before one in line: it came later, but must not go later.
        """
        for pool in run.parked:
            self._refill(run, pool)

    def _refill(self, run: ActiveRun, pool: str) -> None:
        parked = run.parked.get(pool)
        if not parked or not run.alive or run.paused or run.room <= 0:
            return
        while parked and (run.in_line[pool] < run.room or parked[0] < run.last_in_line[pool]):
            self._push(heapq.heappop(parked))

    def first(self, pool: str) -> Candidate | None:
        """Who is first in the line of a pool, ageing apart."""
        heap = self._heaps.get(pool)
        return heap[0] if heap else None

    def wanted(self, slots: int) -> dict[str, int]:
        """What could be taken of each pool at most, in hundredths, where anything is wanted.

        Args:
            slots: free slots of the executor: no more candidates than that can go.
        """
        most = {}
        for pool, heap in self._heaps.items():
            if heap and slots > 0:
                every_one_slot = self._wanted[pool] == share(len(heap))
                most[pool] = share(min(len(heap), slots)) if every_one_slot else self._wanted[pool]
        return most

    def admit(
        self, slots: int, free: Mapping[str, int], sizes: Mapping[str, int] | None = None
    ) -> Admitted:
        """Take candidates out of line while every limit has room.

        Args:
            slots: free slots of the executor.
            free: free hundredths of slots by pool; a pool that is absent does not exist and
                admits nobody who needs any.
            sizes: all hundredths of the pools that were looked up, those of :attr:`elder_pools`
                among them.

        Returns:
            Who may be enqueued, best first. Each run's ``in_flight`` counts them already.
        """
        room, sizes = dict(free), sizes or {}
        self._gone.clear()
        admitted = self._admit_elders(slots, room, sizes)
        slots -= len(admitted)
        heads = [heap[0] for pool, heap in self._heaps.items() if _is_open(heap, room.get(pool, 0))]
        heapq.heapify(heads)
        too_big: list[Candidate] = []
        kept = set(self.ages.elders)
        while heads and slots > 0:
            head = heapq.heappop(heads)
            heap = self._heaps[head.pool]
            candidate = heapq.heappop(heap)
            run, pool = candidate.run, candidate.pool
            run.in_line[pool] -= 1
            self._wanted[pool] -= candidate.need
            if self._may_go(candidate):
                if candidate.need <= room.get(pool, 0):
                    room[pool] = room.get(pool, 0) - candidate.need
                    self._go(candidate)
                    admitted.append(candidate)
                    slots -= 1
                else:
                    too_big.append(candidate)
                    if candidate.lane == _RESUMED and self._fits(candidate, sizes):
                        room[pool] = 0  # what is free now, and comes free, is kept for it
                        kept.add(pool)
            if len(too_big) < _MOST_TOO_BIG:
                self._refill(run, pool)  # who did not go must not hide who stands behind
            if _is_open(heap, room.get(pool, 0)):
                heapq.heappush(heads, heap[0])
        self._send_back(too_big)
        self._count_passes(admitted, slots, room)
        return Admitted(admitted, self._starving(room) if slots > 0 else {}, kept)

    @property
    def elder_pools(self) -> list[str]:
        """Pools in which somebody has been passed over too long: their sizes are asked for."""
        return list(self.ages.elders)

    @staticmethod
    def _fits(candidate: Candidate, sizes: Mapping[str, int]) -> bool:
        """Whether its pool has as many slots as it needs in all, as far as that is known."""
        task = candidate.run.board.tasks[candidate.task]
        return share(task.pool_slots) <= sizes.get(candidate.pool, UNLIMITED)

    def _admit_elders(
        self, slots: int, room: dict[str, int], sizes: Mapping[str, int]
    ) -> list[Candidate]:
        """Let those go first who were passed over too long; keep their pools' slots for the
        others of them."""
        admitted: list[Candidate] = []
        for pool, elder in sorted(self.ages.elders.items(), key=lambda item: item[1].since):
            one = elder.candidate
            fits = pool in sizes and self._fits(one, sizes)
            if not fits or not self.ages.waits(elder) or not self._could_go(one):
                del self.ages.elders[pool]
            elif one.need <= room.get(pool, 0) and len(admitted) < slots:
                room[pool] -= one.need
                self._go(one)
                admitted.append(one)
            else:
                room[pool] = 0
        return admitted

    def _could_go(self, candidate: Candidate) -> bool:
        """Whether only slots are wanting."""
        run = candidate.run
        if run.paused or run.room <= 0:
            return False
        return candidate.limited is None or self._gates.stands(candidate)

    def _count_passes(self, admitted: list[Candidate], slots: int, room: Mapping[str, int]) -> None:
        """Tell how many went before those who wait: of their pool, or of any where the executor
        had no slot left for them."""
        if not admitted:
            return
        went = Counter(one.pool for one in admitted)
        waiting = (pool for pool, heap in self._heaps.items() if heap)
        self.ages.passed(
            [
                (pool, len(admitted) if slots <= 0 and room.get(pool, 0) > 0 else went[pool])
                for pool in waiting
            ],
            self._could_go,
        )

    def _send_back(self, too_big: list[Candidate]) -> None:
        for candidate in too_big:
            self._park(candidate)
        for candidate in too_big:
            self._refill(candidate.run, candidate.pool)

    def _park(self, candidate: Candidate) -> None:
        """Take one out of line that does not go now: to its gate, or to the rest of its run."""
        if candidate.limited is not None:
            self._gates.turn_back(candidate)
        else:
            heapq.heappush(candidate.run.parked.setdefault(candidate.pool, []), candidate)

    def _may_go(self, candidate: Candidate) -> bool:
        run = candidate.run
        if not run.alive or candidate.task not in run.waiting:
            return False
        # An elder goes from outside the line. What stands there for it is void, also when it is
        # back from a deferral, with slots of its own or without.
        if (run.serial, candidate.task) in self._gone:
            return False
        if candidate.lane != lane_of(run, candidate.task):
            return False
        if candidate.need != need_of(run, candidate.task):
            return False
        if candidate.limited is not None and not self._gates.may_go(candidate):
            return False
        if run.paused or run.in_flight >= run.max_active_tasks:
            self._park(candidate)
            if candidate.limited is not None:  # another run may take its place
                self._let_in(self._gates.open(candidate))
            return False
        return True

    def _go(self, candidate: Candidate) -> None:
        candidate.run.in_flight += 1
        self._gone.add((candidate.run.serial, candidate.task))
        self.ages.leave(candidate)
        if candidate.limited is not None:
            self._gates.go(candidate)

    def _push(self, candidate: Candidate) -> None:
        run, pool = candidate.run, candidate.pool
        if not run.in_line[pool] or run.last_in_line[pool] < candidate:
            run.last_in_line[pool] = candidate
        run.in_line[pool] += 1
        self._wanted[pool] += candidate.need
        heapq.heappush(self._heaps.setdefault(pool, []), candidate)

    def _starving(self, room: Mapping[str, int]) -> dict[str, int]:
        return {
            pool: len(heap)
            for pool, heap in self._heaps.items()
            if heap and room.get(pool, 0) < WHOLE
        }


def lane_of(run: ActiveRun, index: int) -> int:
    """0: it comes back from a deferral, or its worker was lost after it had; 1: it begins."""
    return _RESUMED if index in run.resumed else _NEW


def need_of(run: ActiveRun, index: int) -> int:
    """What a task instance takes of its pool when it goes, in hundredths of slots."""
    slots: int = run.board.tasks[index].pool_slots
    return share(slots, WHOLE - run.holding.get(index, 0))


def _is_open(heap: Sequence[Candidate], room: int) -> bool:
    """Whether the first in a pool's line may find room: any at all, or it needs none."""
    return bool(heap) and (room > 0 or heap[0].need == 0)
