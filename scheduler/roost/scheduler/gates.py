"""Tasks with a limit of their own: who of them may stand in line (H4). Pure.

A candidate of a task with ``max_active_tis_per_dag`` or ``max_active_tis_per_dagrun`` waits at
its task's gate and is let into line only while these limits have room, best first over all runs.
So whoever stands in line could go as far as its task is concerned, and thousands of mapped
instances of one limited task hide nobody. Tasks without such a limit never come here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from roost.dag.model import SerializedTask

if TYPE_CHECKING:
    from roost.scheduler.book import ActiveRun
    from roost.scheduler.ready import Candidate

__all__ = ["Gates", "TaskKey", "is_limited"]

TaskKey = tuple[str, str]
"""A task over all runs of its DAG: ``(dag_id, task_id)``."""

_Place = tuple[int, int]  # run serial, index


def is_limited(task: SerializedTask) -> bool:
    """Whether a task has a limit of its own."""
    return task.max_active_tis_per_dag is not None or task.max_active_tis_per_dagrun is not None


class Gates:
    """One gate for each limited task of which somebody waits."""

    def __init__(self) -> None:
        self._waiting: dict[TaskKey, dict[int, ActiveRun]] = {}  # by serial: runs with ``gated``
        self._standing: dict[TaskKey, dict[_Place, Candidate]] = {}  # let in, not gone yet
        self._room: dict[TaskKey, int] = {}
        self._elders: Collection[_Place] = ()

    def __len__(self) -> int:
        return sum(
            len(run.gated[task_id])
            for (_, task_id), runs in self._waiting.items()
            for run in runs.values()
            if run.alive
        )

    @property
    def shared(self) -> Collection[TaskKey]:
        """The tasks with a limit over all runs of their DAG of which somebody waits: the room of
        each is to be told to :meth:`let_in`."""
        keys = {
            key
            for key, runs in self._waiting.items()
            for run in runs.values()
            if run.alive and not run.paused and _shared(run.gated[key[1]][0].limited)
        }
        for key, places in self._standing.items():
            keys.update(key for one in places.values() if one.run.alive and _shared(one.limited))
        return keys

    def hold(self, candidate: Candidate) -> None:
        """Have a candidate wait at its task's gate."""
        run, task = candidate.run, candidate.limited
        assert task is not None, "only limited tasks have a gate"  # noqa: S101
        heapq.heappush(run.gated.setdefault(task.task_id, []), candidate)
        self._waiting.setdefault((run.dag_id, task.task_id), {})[run.serial] = run

    def let_in(
        self, room: Mapping[TaskKey, int], elders: Collection[tuple[int, int]] = ()
    ) -> list[Candidate]:
        """Who comes into line now, as far as every limit has room.

        Args:
            room: how many more of each of :attr:`shared` may be in flight over all runs; one
                that is absent has no such limit.
            elders: run serial and index of those that have been passed over too long.
        """
        self._room = dict(room)
        self._elders = elders
        for key in list(self._standing):
            self._turn_out(key)
        let_in: list[Candidate] = []
        for key in list(self._waiting):
            let_in += self._open(key)
            while (late := self._in_the_way(key)) is not None:
                self.turn_back(late)
                let_in += self._open(key)
        return let_in

    def open(self, candidate: Candidate) -> list[Candidate]:
        """Who comes into line instead of one that was turned back because its run is full."""
        assert candidate.limited is not None, "only limited tasks have a gate"  # noqa: S101
        return self._open((candidate.run.dag_id, candidate.limited.task_id))

    def _turn_out(self, key: TaskKey) -> None:
        """Back to the gate with those in line who would only keep others from coming in."""
        places = self._standing[key]
        for place, one in list(places.items()):
            if not one.run.alive or one.task not in one.run.waiting:
                del places[place]
            elif one.run.paused or one.run.room <= 0:
                self.turn_back(one)
        if not places:
            del self._standing[key]

    def _in_the_way(self, key: TaskKey) -> Candidate | None:
        """The last of those in line who keeps out one that goes before it.

        It was let in when the other had not come yet, or its run was full. Above all it must give
        way to one that comes back from a deferral: it may wait for what that one holds.
        """
        standing = self._standing.get(key, {}).values()
        for run in list(self._waiting.get(key, {}).values()) if standing else ():
            best = self._best(key, run)
            if best is None or run.paused:
                continue
            after = [one for one in standing if best < one and self._gives_way(one, best)]
            inside = sum(one.run is run for one in standing)
            room = min(run.room, _limit_of_run(best) - run.active[key[1]])
            if room <= inside:
                after = [one for one in after if one.run is run]
            if after and room > 0 and self._room.get(key, 1) > 0:
                return max(after)
        return None

    def _gives_way(self, one: Candidate, best: Candidate) -> bool:
        """Who has been passed over too long keeps its place among its like."""
        return best.lane < one.lane or (one.run.serial, one.task) not in self._elders

    def _open(self, key: TaskKey) -> list[Candidate]:
        task_id = key[1]
        standing = self._standing.setdefault(key, {})
        free = self._room.get(key)
        places = None if free is None else free - len(standing)
        here: dict[int, int] = {}
        for serial, _ in standing:
            here[serial] = here.get(serial, 0) + 1
        heads = []
        for run in list(self._waiting[key].values()):
            best = self._best(key, run)
            if best is not None and not run.paused and run.room > here.get(run.serial, 0):
                heads.append(best)
        heapq.heapify(heads)
        let_in: list[Candidate] = []
        while heads and (places is None or len(let_in) < places):
            run = heapq.heappop(heads).run
            candidate = heapq.heappop(run.gated[task_id])
            inside = here.get(run.serial, 0)
            if _limit_of_run(candidate) <= run.active[task_id] + inside:
                heapq.heappush(run.gated[task_id], candidate)
                continue
            here[run.serial] = inside + 1
            standing[run.serial, candidate.task] = candidate
            let_in.append(candidate)
            best = self._best(key, run)
            if best is not None and run.room > inside + 1:
                heapq.heappush(heads, best)
        if not standing:
            del self._standing[key]
        if not self._waiting[key]:
            del self._waiting[key]
        return let_in

    def _best(self, key: TaskKey, run: ActiveRun) -> Candidate | None:
        """The first of a run at a gate; forgets the run when nobody is left."""
        heap = run.gated[key[1]] if run.alive else []
        while heap and heap[0].task not in run.waiting:
            heapq.heappop(heap)
        if heap:
            return heap[0]
        run.gated.pop(key[1], None)
        self._waiting[key].pop(run.serial, None)
        return None

    def may_go(self, candidate: Candidate) -> bool:
        """Whether one that stood in line was let in, and its limit still has room."""
        task = candidate.limited
        assert task is not None, "only limited tasks have a gate"  # noqa: S101
        key = (candidate.run.dag_id, task.task_id)
        place = (candidate.run.serial, candidate.task)
        if self._standing.get(key, {}).get(place) is not candidate:
            return False  # turned out, or let in anew
        if self._room.get(key, 1) <= 0:
            self.turn_back(candidate)
            return False
        return True

    def stands(self, candidate: Candidate) -> bool:
        """Whether a candidate of this place has been let in, and its limit still has room."""
        assert candidate.limited is not None, "only limited tasks have a gate"  # noqa: S101
        key = (candidate.run.dag_id, candidate.limited.task_id)
        place = (candidate.run.serial, candidate.task)
        return place in self._standing.get(key, {}) and self._room.get(key, 1) > 0

    def turn_back(self, candidate: Candidate) -> None:
        """Send one that stood in line back to its gate; what stands there is void."""
        self._leave(candidate)
        self.hold(candidate._replace())

    def go(self, candidate: Candidate) -> None:
        """Count one that was admitted."""
        key = self._leave(candidate)
        candidate.run.active[key[1]] += 1
        if key in self._room:
            self._room[key] -= 1

    def _leave(self, candidate: Candidate) -> TaskKey:
        assert candidate.limited is not None, "only limited tasks have a gate"  # noqa: S101
        key = (candidate.run.dag_id, candidate.limited.task_id)
        self._standing.get(key, {}).pop((candidate.run.serial, candidate.task), None)
        return key


def _limit_of_run(candidate: Candidate) -> float:
    limit = candidate.limited and candidate.limited.max_active_tis_per_dagrun
    return limit if isinstance(limit, int) else math.inf


def _shared(task: SerializedTask | None) -> bool:
    return task is not None and task.max_active_tis_per_dag is not None
