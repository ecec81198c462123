"""Who of those that stand in line would go now, and what stops each of the others. Pure.

It admits with the scheduler's own code, on runs read from the database, and then asks of each
one left which limit has no room for it. So what it says is what the next turn does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from roost.dag.model import SerializedTask
from roost.models.slots import as_slots, share
from roost.scheduler.book import ActiveRun
from roost.scheduler.gates import TaskKey
from roost.scheduler.ready import UNLIMITED, Ready, lane_of, need_of

__all__ = ["GOES", "Limits", "Reason", "classify"]


class Reason(NamedTuple):
    """What is in a task instance's way.

    Attributes:
        kind: one word for programs, e.g. ``pool_full``.
        text: one line for people.
        numbers: the numbers in it, and names by which to look further.
    """

    kind: str
    text: str
    numbers: Mapping[str, object]


GOES = Reason("executable", "nothing is in its way: the next pass of the scheduler takes it up", {})


@dataclass(frozen=True)
class Limits:
    """What one scheduler may hand over, as it stands in the database.

    Attributes:
        parallelism: executor slots of the scheduler.
        in_flight: how many its task instances take.
        pools: ``(slots, used)`` by pool; -1 slots are without limit, ``used`` is in hundredths.
        tasks: ``(max_active_tis_per_dag, used)`` by task.
    """

    parallelism: int
    in_flight: int
    pools: Mapping[str, tuple[int, int]]
    tasks: Mapping[TaskKey, tuple[int, int]] = field(default_factory=dict)

    def free(self) -> dict[str, int]:
        """Free hundredths of slots by pool."""
        sizes = self.sizes()
        return {pool: max(0, sizes[pool] - used) for pool, (_, used) in self.pools.items()}

    def sizes(self) -> dict[str, int]:
        """All hundredths of slots by pool."""
        return {
            pool: UNLIMITED if slots < 0 else share(slots)
            for pool, (slots, _) in self.pools.items()
        }


def classify(runs: Iterable[ActiveRun], limits: Limits) -> dict[int, list[Reason]]:
    """What stops each task instance that waits for slots, by id; nothing stops who goes now.

    Args:
        runs: the runs of one scheduler in which somebody waits. They are used up by this.
        limits: of that scheduler.
    """
    runs = list(runs)
    ready = Ready()
    for run in runs:
        for index in run.waiting:
            ready.add(run, index)
    room = {key: max(0, most - used) for key, (most, used) in limits.tasks.items()}
    slots = max(0, limits.parallelism - limits.in_flight)
    free = limits.free()
    if slots > 0:
        ready.let_in(room)
    gone, _, kept = ready.admit(slots, free, limits.sizes())
    for one in gone:
        task = one.run.board.tasks[one.task]
        free[one.pool] -= one.need
        room[one.run.dag_id, task.task_id] = room.get((one.run.dag_id, task.task_id), UNLIMITED) - 1
    left = _Left(limits, free, room, slots - len(gone), len(gone), kept)
    went = {(one.run.serial, one.task) for one in gone}
    found: dict[int, list[Reason]] = {}
    for place, run, index in _in_line(runs):
        stopped = (run.serial, index) not in went
        found[run.board.ti_ids[index]] = left.reasons(run, index, place) if stopped else []
    return found


def _in_line(runs: list[ActiveRun]) -> Iterable[tuple[int, ActiveRun, int]]:
    """Everybody who waits, with the place in the line of the pool, from 1."""
    lines: dict[str, list[tuple[tuple[int, ...], ActiveRun]]] = defaultdict(list)
    for run in runs:
        board = run.board
        for index in run.waiting:
            rank: tuple[int, ...] = (
                lane_of(run, index),
                -board.weights[index],
                run.logical_date,
                run.serial,
                board.origin[index],
                index,
            )
            lines[board.tasks[index].pool].append((rank, run))
    for line in lines.values():
        for place, (rank, run) in enumerate(sorted(line, key=lambda pair: pair[0]), start=1):
            yield place, run, rank[-1]


class _Left(NamedTuple):
    """What is left once everybody has gone who can."""

    limits: Limits
    free: Mapping[str, int]
    room: Mapping[TaskKey, int]
    slots: int
    gone: int
    kept: Collection[str]

    def reasons(self, run: ActiveRun, index: int, place: int) -> list[Reason]:
        task = run.board.tasks[index]
        need = need_of(run, index)
        found = [
            self._paused(run),
            self._pool(task, need, place) if need else None,
            self._task(run, task),
            self._run(run),
            self._executor(place),
            self._kept(task, need, place),
        ]
        reasons = [reason for reason in found if reason is not None]
        return reasons or [
            Reason(
                "behind",
                f"others of pool {task.pool} go first; number {place} in line",
                {"pool": task.pool, "place": place},
            )
        ]

    def _paused(self, run: ActiveRun) -> Reason | None:
        if not run.paused:
            return None
        text = f"DAG {run.dag_id} is paused; `roost dags unpause {run.dag_id}`"
        return Reason("paused", text, {"dag_id": run.dag_id})

    def _pool(self, task: SerializedTask, need: int, place: int) -> Reason | None:
        pool = task.pool
        if pool not in self.limits.pools:  # S41
            text = f"there is no pool {pool!r}; `roost pools set {pool} SLOTS`"
            return Reason("pool_missing", text, {"pool": pool})
        slots, used = self.limits.pools[pool]
        numbers: dict[str, object] = {
            "pool": pool, "slots": slots, "used": as_slots(used), "needs": as_slots(need),
            "place": place, "ahead": place - 1,
        }  # fmt: skip
        if 0 <= slots < task.pool_slots:  # H5
            text = f"it needs {task.pool_slots} slots of pool {pool}, which has {slots} in all"
            return Reason("pool_too_small", text, numbers)
        if slots < 0 or need <= self.free[pool]:
            return None
        text = (
            f"pool {pool} has no room: {as_slots(used)} of {slots} slots in use, it needs "
            f"{as_slots(need)}; "
            f"number {place} in line"
        )
        return Reason("pool_full", text, numbers)

    def _kept(self, task: SerializedTask, need: int, place: int) -> Reason | None:
        if not need or task.pool not in self.kept:
            return None
        text = (
            f"pool {task.pool} keeps its free slots for one that goes first and needs more of "
            f"them; number {place} in line"
        )
        return Reason("pool_kept", text, {"pool": task.pool, "place": place})

    def _task(self, run: ActiveRun, task: SerializedTask) -> Reason | None:
        most = task.max_active_tis_per_dagrun
        active = run.active[task.task_id]
        if most is not None and active >= most:
            text = f"{active} of max_active_tis_per_dagrun={most} of it are active in its run"
            return Reason("max_active_tis_per_dagrun", text, {"active": active, "limit": most})
        key = (run.dag_id, task.task_id)
        if task.max_active_tis_per_dag is None or self.room.get(key, 1) > 0:
            return None
        most, active = self.limits.tasks[key]
        text = f"{active} of max_active_tis_per_dag={most} of it are active over all runs"
        return Reason("max_active_tis_per_dag", text, {"active": active, "limit": most})

    def _run(self, run: ActiveRun) -> Reason | None:
        if run.in_flight < run.max_active_tasks:
            return None
        most = run.max_active_tasks
        text = f"{run.in_flight} of max_active_tasks={most} tasks of its run are active"
        return Reason("max_active_tasks", text, {"active": run.in_flight, "limit": most})

    def _executor(self, place: int) -> Reason | None:
        if self.slots > 0:
            return None
        used, most = self.limits.in_flight, self.limits.parallelism
        text = (
            f"{used} of core.parallelism={most} tasks are queued or running; number {place} in line"
        )
        return Reason("parallelism", text, {"active": used, "limit": most, "place": place})
