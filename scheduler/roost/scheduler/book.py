"""What the scheduler remembers of the runs it owns, so that it reads only what is new.

The book is a cache: it is filled from the database, every write that it leads to is guarded by
the state in the database, and at any doubt a run is dropped and read again. Losing it costs a
query, never a task.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from roost.dag.model import SerializedDag
from roost.models.queries.runs import InstanceRow, RunRow, VersionRow
from roost.models.states import IN_FLIGHT, Event, State
from roost.scheduler.gates import is_limited
from roost.scheduler.mapped import open_board
from roost.scheduler.plan import Plan

if TYPE_CHECKING:
    from roost.scheduler.ready import Candidate

__all__ = ["ActiveRun", "Alarm", "Book", "Version", "Waiting"]


class Version(NamedTuple):
    """A version of a DAG with its compiled plan, shared by all runs of that version."""

    id: int
    dag_id: str
    code_hash: str
    fileloc: str
    plan: Plan


class Waiting(NamedTuple):
    """A task instance that its board scheduled and no dispatch holds yet.

    Attributes:
        path: moves still to be written before ``enqueue``; empty once they are.
        columns: what to write along with them.
        guard: the dispatch or trigger that the row must still hold: ``(column, value)``.
    """

    path: tuple[Event, ...]
    columns: dict[str, object]
    guard: tuple[str, int] | None = None


class Alarm(NamedTuple):
    """Something due at a moment (microseconds): a retry, or the time-out of a trigger or run."""

    due_at: int
    run_key: int
    ti_id: int  # 0: the run's own time is up; -1: a deadline of the run is due
    trigger_id: int | None  # None: a retry
    on_timeout: str = "retry"  # of the trigger


_SERIALS = itertools.count()
"""Tells a run that was read again from its former self, whose candidates are void."""

_KEPT_VERSIONS = 256


class ActiveRun:
    """One unfinished run: its board, its try counts, and what stands in line for slots."""

    __slots__ = (
        "active",
        "alive",
        "backfill_id",
        "board",
        "dag_id",
        "doubted",
        "first_tries",
        "fresh",
        "gated",
        "holding",
        "in_flight",
        "in_line",
        "key",
        "last_in_line",
        "logical_date",
        "losses",
        "max_active_tasks",
        "parked",
        "paused",
        "resumed",
        "retries_at",
        "run_id",
        "serial",
        "started_at",
        "timeout_at",
        "tries",
        "version",
        "waiting",
        "wish",
    )

    def __init__(
        self,
        row: RunRow,
        version: Version,
        instances: Sequence[InstanceRow],
        holding_pools: Mapping[str, int],
    ) -> None:
        self.serial = next(_SERIALS)
        self.key = row.id
        self.dag_id = row.dag_id
        self.run_id = row.run_id
        self.started_at = row.start_date
        self.timeout_at: int | None = None  # H11
        if row.start_date is not None and version.plan.dag.dagrun_timeout_us is not None:
            self.timeout_at = row.start_date + version.plan.dag.dagrun_timeout_us
        self.wish = row.wish
        self.backfill_id = row.backfill_id
        self.version = version
        # Runs without a logical date stand in line by the moment they were asked for.
        self.logical_date = row.run_after if row.logical_date is None else row.logical_date
        self.max_active_tasks = version.plan.dag.max_active_tasks
        self.board = open_board(
            version.plan, [(i.id, i.task_id, i.map_index, i.state) for i in instances]
        )
        self.alive = True
        self.doubted = False
        self.paused = False
        self.in_line: Counter[str] = Counter()
        self.last_in_line: dict[str, Candidate] = {}
        self.in_flight = 0
        self.active: Counter[str] = Counter()  # of tasks with a limit of their own: in flight
        self.gated: dict[str, list[Candidate]] = {}  # by task: those that wait for its limit
        self.parked: dict[str, list[Candidate]] = {}
        self.waiting: dict[int, Waiting] = {}
        self.fresh: list[int] = []
        # What each keeps of its pool slots until it runs again, in per cent (H5).
        self.holding: dict[int, int] = {}
        self.resumed: set[int] = set()  # goes on after a deferral, in this try
        self.losses: dict[int, int] = {}
        self.first_tries: dict[int, int] = {}  # tries before a user's clear: retries count anew
        self.retries_at: dict[int, int] = {}  # an alarm for another moment means nothing any more
        self.tries = [0] * len(self.board.states)
        for instance in instances:
            self._restore(instance, holding_pools)

    def _restore(self, instance: InstanceRow, holding_pools: Mapping[str, int]) -> None:
        index = self.board.index_of(instance.id)
        if index is None:
            return
        self.tries[index] = instance.try_number
        if instance.losses:
            self.losses[index] = instance.losses
        if instance.first_try:
            self.first_tries[index] = instance.first_try
        if instance.state == State.UP_FOR_RETRY and instance.retry_at is not None:
            self.retries_at[index] = instance.retry_at
        if instance.state in IN_FLIGHT:
            self.in_flight += 1
            task = self.board.tasks[index]
            if is_limited(task):
                self.active[task.task_id] += 1
        elif instance.state == State.SCHEDULED:
            self.waiting[index] = Waiting((), {})
        if instance.next_method is not None:
            self.resumed.add(index)
        holds = instance.state == State.DEFERRED or (
            instance.state == State.SCHEDULED and index in self.resumed
        )
        percent = holding_pools.get(self.board.tasks[index].pool, 0)
        if holds and percent:
            self.holding[index] = percent

    def has_started(self, index: int) -> bool:
        """Whether a body of this task instance has begun, in this try or in one before (H28)."""
        return self.own_tries(index) > 1 or index in self.resumed or index in self.losses

    def starts_in_trigger(self, index: int) -> bool:
        """Whether no worker is to run this task instance before its trigger has had an event."""
        return index not in self.resumed and self.board.tasks[index].start is not None

    def has_dispatch(self, index: int) -> bool:
        """Whether a task instance is queued or runs; its board need not know which."""
        state = self.board.states[index]
        return state in IN_FLIGHT or (state == State.SCHEDULED and index not in self.waiting)

    def own_tries(self, index: int) -> int:
        """Tries of a task instance, since it was cleared if it was: what ``retries`` limits."""
        return self.tries[index] - self.first_tries.get(index, 0)

    def begin_anew(self, index: int) -> None:
        """A user has cleared a task instance."""
        self.first_tries[index] = self.tries[index]
        self.losses.pop(index, None)
        self.resumed.discard(index)

    def grow(self, shells: Iterable[int]) -> None:
        """Mapped tasks have been expanded on the board; the first instance is who the task was."""
        self.tries += [0] * (len(self.board.states) - len(self.tries))
        for shell in shells:
            first = self.board.instances(shell)[0]
            self.tries[first] = self.tries[shell]
            if shell in self.first_tries:
                self.first_tries[first] = self.first_tries.pop(shell)

    def unwritten(self) -> list[tuple[int, Waiting]]:
        """What waits and does not stand as ``scheduled`` in the database yet."""
        fresh, self.fresh = self.fresh, []
        return [(i, self.waiting[i]) for i in fresh if i in self.waiting and self.waiting[i].path]

    def wait(self, index: int, waiting: Waiting) -> None:
        """Note a task instance as waiting for slots."""
        self.waiting[index] = waiting
        self.fresh.append(index)

    @property
    def room(self) -> int:
        """How many more task instances of this run may be in flight."""
        return self.max_active_tasks - self.in_flight


class Book:
    """All runs of this scheduler, by key; their versions; their alarms."""

    def __init__(self) -> None:
        self.runs: dict[int, ActiveRun] = {}
        self.queued: dict[int, RunRow] = {}
        self.alarms: list[Alarm] = []
        self.mindful: set[ActiveRun] = set()  # runs with tasks that look at the previous run
        self._versions: dict[int, Version] = {}

    @property
    def in_flight(self) -> int:
        """Task instances queued or running over all runs: the executor's used slots."""
        return sum(run.in_flight for run in self.runs.values())

    def version(self, row: VersionRow) -> Version:
        """Keep a version, compiled once."""
        if len(self._versions) >= _KEPT_VERSIONS:
            used = {run.version.id for run in self.runs.values()}
            self._versions = {id_: v for id_, v in self._versions.items() if id_ in used}
        dag = msgspec.json.decode(row.data, type=SerializedDag)
        kept = Version(row.id, row.dag_id, row.code_hash, row.fileloc, Plan.compile(dag))
        self._versions[row.id] = kept
        return kept

    def known_version(self, version_id: int) -> Version | None:
        """A version that :meth:`version` has kept."""
        return self._versions.get(version_id)

    def add(self, run: ActiveRun, alarms: Iterable[Alarm]) -> None:
        """Take a run up, instead of what was known of it."""
        self.drop(run.key)
        self.runs[run.key] = run
        if run.board.plan.past:
            self.mindful.add(run)
        for alarm in alarms:
            heapq.heappush(self.alarms, alarm)

    def drop(self, run_key: int) -> None:
        """Forget a run; its candidates and alarms are void."""
        self.queued.pop(run_key, None)
        run = self.runs.pop(run_key, None)
        if run is not None:
            run.alive = False
            self.mindful.discard(run)

    def alarm(self, alarm: Alarm) -> None:
        """Set an alarm."""
        heapq.heappush(self.alarms, alarm)

    def due_alarms(self, now: int, most: int) -> list[Alarm]:
        """Take at most so many of the alarms that are due by ``now`` (microseconds)."""
        due: list[Alarm] = []
        while self.alarms and self.alarms[0].due_at <= now and len(due) < most:
            due.append(heapq.heappop(self.alarms))
        return due
