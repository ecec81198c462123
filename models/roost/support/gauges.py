"""What the gauges read, as a pure function of what the database holds (N6-N10, 2D).

The scheduler that reports gauges fills a :class:`Snapshot` in one transaction and hands the
readings to :meth:`roost.support.stats.Stats.report`; ``roost metrics verify`` can compare them
with what a metrics store says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from roost.support.stats import Reading

__all__ = ["PoolUse", "Snapshot", "TaskKey", "TriggererLoad", "gauges_from"]

TaskKey = tuple[str, str, str]
"""(queue, dag_id, task_id): what ``ti.*`` gauges are told apart by."""

_TI_STATES = ("scheduled", "queued", "running", "deferred")


@dataclass(frozen=True, slots=True)
class PoolUse:
    """One pool: its size, and the slots of its task instances by state.

    Attributes:
        slots: -1 for a pool without limit (S40).
        resumed: those of the ``scheduled`` slots whose task comes back from a deferral; they
            count as used in a pool that counts deferred tasks (H5).
        deferred_percent: how much of its slots a deferred or resumed task holds.
        starving: task instances (not slots) that lack only a slot of this pool.
    """

    pool: str
    slots: int
    deferred_percent: int = 0
    running: int = 0
    queued: int = 0
    deferred: int = 0
    scheduled: int = 0
    resumed: int = 0
    starving: int = 0

    @property
    def open(self) -> int:
        """Slots that are wholly free; 0 while a pool that was made smaller holds more than it has;
        -1: no limit."""
        if self.slots < 0:
            return -1
        used = (self.running + self.queued) * 100
        used += (self.deferred + self.resumed) * self.deferred_percent
        return max(0, (self.slots * 100 - used) // 100)


@dataclass(frozen=True, slots=True)
class TriggererLoad:
    """What one triggerer runs of what it could; ``capacity`` None when it is not known."""

    host: str
    running: int
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the gauges say, read at one moment.

    Attributes:
        parallelism: ``core.parallelism``.
        tasks: number of task instances by state, for each (queue, dag_id, task_id) that has any;
            states without a gauge are ignored.
        executable: task instances that the last pass handed to the executor (N10).
        parse_us: microseconds the latest parse of every DAG file took, in sum.
        triggerers: also the ended ones of hosts whose gauges may still stand above 0.
        known: keys to report as 0 when ``tasks`` lacks them. Give those of all active DAGs with
            the first report after taking over from a scheduler that may have been killed: nobody
            else would take its last numbers back.
    """

    parallelism: int
    tasks: Mapping[TaskKey, Mapping[str, int]] = field(default_factory=dict)
    pools: Sequence[PoolUse] = ()
    executable: int = 0
    dagruns_running: int = 0
    dags: int = 0
    import_errors: int = 0
    parse_us: int = 0
    triggerers: Sequence[TriggererLoad] = ()
    known: Collection[TaskKey] = ()


def gauges_from(snapshot: Snapshot) -> list[Reading]:
    """Every gauge of the registry that the snapshot decides, each series once."""
    queued = sum(states.get("queued", 0) for states in snapshot.tasks.values())
    running = sum(states.get("running", 0) for states in snapshot.tasks.values())
    single = {
        "executor.open_slots": max(0, snapshot.parallelism - running),
        "executor.queued_tasks": queued,
        "executor.running_tasks": running,
        "scheduler.tasks.starving": sum(pool.starving for pool in snapshot.pools),
        "scheduler.tasks.executable": snapshot.executable,
        "scheduler.dagruns.running": snapshot.dagruns_running,
        "dagbag_size": snapshot.dags,
        "dag_processing.import_errors": snapshot.import_errors,
        "dag_processing.total_parse_time": snapshot.parse_us / 1_000_000,
    }
    return [
        *(Reading(name, value, {}) for name, value in single.items()),
        *_tasks(snapshot),
        *(reading for pool in snapshot.pools for reading in _pool(pool)),
        *_triggerers(snapshot.triggerers),
    ]


def _tasks(snapshot: Snapshot) -> list[Reading]:
    """Only what is not 0, and the known: an idle installation sends no line for each task."""
    readings = []
    for key in [*snapshot.tasks, *(key for key in snapshot.known if key not in snapshot.tasks)]:
        labels = dict(zip(("queue", "dag", "task"), key, strict=True))
        states = snapshot.tasks.get(key, {})
        readings += [
            Reading(f"ti.{state}", states.get(state, 0), labels)
            for state in _TI_STATES
            if states.get(state) or key in snapshot.known
        ]
    return readings


def _pool(pool: PoolUse) -> list[Reading]:
    values = {
        "pool.open_slots": pool.open,
        "pool.queued_slots": pool.queued,
        "pool.running_slots": pool.running,
        "pool.deferred_slots": pool.deferred,
        "pool.scheduled_slots": pool.scheduled,
        "pool.starving_tasks": pool.starving,
    }
    return [Reading(name, value, {"pool": pool.pool}) for name, value in values.items()]


def _triggerers(loads: Sequence[TriggererLoad]) -> list[Reading]:
    running: dict[str, int] = {}
    left: dict[str, int] = {}
    for load in loads:
        running[load.host] = running.get(load.host, 0) + load.running
        if load.capacity is not None:
            left[load.host] = left.get(load.host, 0) + max(0, load.capacity - load.running)
    return [
        *(Reading("triggers.running", value, {"host": host}) for host, value in running.items()),
        *(
            Reading("triggerer.capacity_left", value, {"host": host})
            for host, value in left.items()
        ),
    ]
