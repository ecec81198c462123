"""One turn of the scheduler: one transaction that settles, decides and hands over.

The steps of a turn share this object. They run in order (see :func:`take_turn`): adopt runs,
settle what others left in the inbox, wake what is due, create and start runs, decide what follows,
enqueue what fits, finish runs. Nothing leaves the process before the transaction has committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from roost.models.engine import Tx
from roost.models.queries import handoffs
from roost.models.queries.assets import NewEvent
from roost.models.queries.handoffs import Handoff
from roost.models.queries.runs import mark_changed
from roost.models.slots import share
from roost.models.states import Event
from roost.models.transitions import Moved, Reason, move
from roost.scheduler.book import ActiveRun, Book
from roost.scheduler.gates import TaskKey, is_limited
from roost.scheduler.ready import Ready
from roost.scheduler.starters import Starters
from roost.support.clock import SECOND
from roost.support.slices import Slices
from roost.support.wire import CallbackSpec

__all__ = ["DEFAULT_QUEUE", "FIRST", "SWEEP_US", "FinishedRun", "IdBlock", "Memory", "Turn"]

DEFAULT_QUEUE = "default"
FIRST = 2**31 - 1
"""Priority of callbacks: before every task, for they are short and somebody waits for the news."""
SWEEP_US = 5 * SECOND
"""How long after a look at all that waits for runs comes the next."""
_FIRST_EVENTS = 32
_MOST = 1000


class IdBlock:
    """Dispatch ids reserved from the database, given out one by one, always increasing."""

    SIZE = 10_000

    def __init__(self) -> None:
        self._next = self._end = 0

    @property
    def left(self) -> int:
        """Ids that can be given without asking the database."""
        return self._end - self._next

    def refill(self, first: int, size: int) -> None:
        """Give ids from ``first`` on, ``size`` of them."""
        self._next, self._end = first, first + size

    def take(self) -> int:
        """The next id."""
        taken, self._next = self._next, self._next + 1
        return taken

    def void(self) -> None:
        """Give up the rest: runs taken over may have seen higher ids (S2)."""
        self._next = self._end = 0


@dataclass(slots=True)
class Memory:
    """What survives from one turn to the next. All of it can be dropped and read again."""

    book: Book = field(default_factory=Book)
    ready: Ready = field(default_factory=Ready)
    starters: Starters = field(default_factory=Starters)
    ids: IdBlock = field(default_factory=IdBlock)
    paused: frozenset[str] = frozenset()
    may_start: bool = True  # something changed since queued runs were last looked at
    start_at: int | None = None  # look at them again then, whatever happens
    holding_pools: dict[str, int] = field(default_factory=dict)  # per cent of a slot (H5)
    sweep_at: int = 0  # look then at all triggers that wait for runs
    swept: int = 0  # where the last look at them stopped
    slices: Slices = field(default_factory=lambda: Slices(_FIRST_EVENTS, _MOST))  # of events

    def is_sweep_due(self, now: int) -> bool:
        """Whether ``sweep_at`` has come, or is so far off that the wall clock was set back."""
        return not 0 < self.sweep_at - now <= SWEEP_US


class FinishedRun(NamedTuple):
    """A run that ended in this turn, and how long it ran in microseconds."""

    dag_id: str
    succeeded: bool
    took_us: int


@dataclass(slots=True)
class Turn:
    """State of one turn.

    Attributes:
        now: wall clock in microseconds, read once; decides what is due.
        batch: most rows that a step takes at once, so that a turn stays short.
        more: a step left work behind; the next turn follows at once.
        released: pool slots given back in this turn, by pool, in hundredths.
        let_go_of: ends of dispatches of tasks with ``max_active_tis_per_dag``, by task.
        deferred: triggers were created, or are not waited for any more: the triggerer shall look.
        failing: runs with fail_fast in which a task failed for good.
        wished: somebody wants tasks to end that a worker may have: the worker shall look.
        deadlines: how many were created, missed, and not missed (H22).
        callbacks: dispatches of callbacks (H23), without an id until they are written.
        awaiting: triggers created in this turn that wait for others.
        sweep_at: when to sweep what waits for others, if anything does.
        told_others: events were written for runs that another scheduler decides.
        blocked: DAGs are due, but as many of their runs as allowed are active.
        events_left: triggers have events that this turn did not take.
        ended: how many tries ended, by DAG, task and state.
        starving: candidates left for want of pool slots, by pool.
    """

    tx: Tx
    memory: Memory
    job_id: int
    now: int
    parallelism: int
    max_losses: int
    max_retry_delay_us: int = 24 * 3600 * SECOND
    max_map_length: int = 1024
    batch: int = _MOST
    more: bool = False
    touched: dict[int, ActiveRun] = field(default_factory=dict)
    released: Counter[str] = field(default_factory=Counter)
    let_go_of: Counter[TaskKey] = field(default_factory=Counter)
    handoffs: list[Handoff] = field(default_factory=list)
    callbacks: list[Handoff] = field(default_factory=list)
    deadlines: Counter[str] = field(default_factory=Counter)
    deferred: bool = False
    failing: list[ActiveRun] = field(default_factory=list)
    wished: bool = False
    awaiting: list[int] = field(default_factory=list)
    told_others: bool = False
    sweep_at: int | None = None
    blocked: bool = False
    events_left: bool = False
    starving: dict[str, int] = field(default_factory=dict)
    produced: list[NewEvent] = field(default_factory=list)  # events of assets, not written yet
    finished: list[FinishedRun] = field(default_factory=list)
    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def actor(self) -> str:
        """Who moves, for the log."""
        return f"scheduler:{self.job_id}"

    @property
    def book(self) -> Book:
        """The runs in memory."""
        return self.memory.book

    def doubt(self, run: ActiveRun) -> None:
        """The book was wrong about a run: others moved something. It is read again next."""
        run.doubted = True
        mark_changed(self.tx, run.key)
        self.more = True

    def reserve_ids(self, count: int) -> None:
        """Have at least so many dispatch ids at hand."""
        if self.memory.ids.left < count:
            size = max(IdBlock.SIZE, count)
            self.memory.ids.refill(handoffs.allocate_ids(self.tx, "dispatch", size), size)

    def line_up(self, run: ActiveRun, index: int) -> None:
        """Let a task instance stand where those like it do: for a worker, or for its trigger."""
        if run.starts_in_trigger(index):
            self.memory.starters.add(run, index, self.now)
        else:
            self.memory.ready.add(run, index)

    def touch(self, run: ActiveRun) -> None:
        """Note that something of the run changed: it is decided in this turn."""
        self.touched[run.key] = run

    def move(
        self,
        events: Event | tuple[Event, ...],
        rows: Sequence[dict[str, Any]],
        *,
        sets: tuple[str, ...] = (),
        adds: tuple[str, ...] = (),
        guards: tuple[str, ...] = (),
        reason: Reason = None,
    ) -> dict[int, Moved]:
        """Move task instances; gives those that moved, by id."""
        return {
            m.id: m
            for m in move(
                self.tx,
                events,
                rows,
                actor=self.actor,
                sets=sets,
                adds=adds,
                guards=guards,
                reason=reason,
            )
        }

    def call_back(
        self, run_key: int, spec: CallbackSpec, queue: str = DEFAULT_QUEUE, handed: int = 0
    ) -> None:
        """Have a callback run in a task process (H23), handed over as this turn commits.

        It takes one of a worker's slots, but none of a pool and none of ``core.parallelism``. It
        is run at least once: what a worker loses is handed over anew, ``max_losses`` times.

        Args:
            run_key: the run that it is about.
            spec: what to call, and with what.
            queue: which workers may take it; a task's callbacks go where the task goes.
            handed: how often it was handed over before.
        """
        body = msgspec.json.encode(spec).decode()
        self.callbacks.append(Handoff(0, None, run_key, handed + 1, queue, FIRST, body))

    def let_go(self, run: ActiveRun, index: int, *, defers: bool = False) -> None:
        """Count a dispatch of the run out: its executor slot, and its pool slots but for the part
        that a task keeps which defers in a pool that counts deferral (H5)."""
        task = run.board.tasks[index]
        run.in_flight -= 1
        if is_limited(task):
            run.active[task.task_id] -= 1
            if task.max_active_tis_per_dag is not None:
                self.let_go_of[run.dag_id, task.task_id] += 1
        self.released[task.pool] += share(task.pool_slots)
        if defers and (percent := self.memory.holding_pools.get(task.pool)):
            run.holding[index] = percent
            self.released[task.pool] -= share(task.pool_slots, percent)
        self.memory.ready.unpark(run)

    def give_back(self, run: ActiveRun, index: int) -> None:
        """Give back what a task instance holds of its pool while it waits, if anything."""
        if percent := run.holding.pop(index, 0):
            task = run.board.tasks[index]
            self.released[task.pool] += share(task.pool_slots, percent)
