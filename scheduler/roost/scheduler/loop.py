"""The scheduler without its shell: takes turns, and knows when the next one is due."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import Engine

from roost.models.engine import Tx, read, transact
from roost.models.queries import runs
from roost.models.queries.handoffs import Handoff
from roost.models.queries.look import Look, look
from roost.models.queries.recount import recount
from roost.scheduler.steps.adopt import adopt_runs
from roost.scheduler.steps.alarms import settle_alarms
from roost.scheduler.steps.assets import settle_assets
from roost.scheduler.steps.awaited import fire_awaited
from roost.scheduler.steps.create_runs import create_runs, start_runs
from roost.scheduler.steps.cutting import fail_fast
from roost.scheduler.steps.decide import decide, finish_runs
from roost.scheduler.steps.deferral import settle_events
from roost.scheduler.steps.enqueue import enqueue
from roost.scheduler.steps.past import hold_back
from roost.scheduler.steps.settle import settle_outcomes
from roost.scheduler.steps.wishes import take_back
from roost.scheduler.turn import FinishedRun, Memory, Turn
from roost.support.clock import SECOND, now_us

__all__ = ["LeaseLost", "Report", "Scheduler"]

_BLOCKED_US = 2 * SECOND
log = logging.getLogger("roost.scheduler")


class LeaseLost(Exception):
    """Another daemon declared this one dead: its memory is void and it must rejoin."""


class Report(NamedTuple):
    """What a turn did, once its transaction has committed."""

    more: bool
    handoffs: list[Handoff]
    callbacks: list[Handoff]
    deadlines: Counter[str]
    deferred: bool
    wished: bool
    starving: dict[str, int]
    finished: list[FinishedRun]
    ended: Mapping[tuple[str, str, str], int]
    in_flight: int
    next_due: int | None
    told_others: bool
    sweep_at: int | None


class Scheduler:
    """Decides the runs that this job has claimed. Synchronous; one turn is one transaction.

    Args:
        engine: the metadata database.
        parallelism: most task instances queued or running at once.
        max_losses: how often a task instance may be lost by its workers before that costs a try.
        max_retry_delay_us: bound of exponential backoff (H13).
        ageing_us: how long others may pass a task instance before it goes first (H4, H5).
        max_map_length: most instances of a mapped task in one run (H17).
        clock: the wall clock in microseconds; it decides what is due, nothing else.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        parallelism: int,
        max_losses: int = 5,
        max_retry_delay_us: int = 24 * 3600 * SECOND,
        ageing_us: int = 60 * SECOND,
        max_map_length: int = 1024,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._engine = engine
        self._parallelism = parallelism
        self._max_losses = max_losses
        self._max_retry_delay_us = max_retry_delay_us
        self._ageing_us = ageing_us
        self._max_map_length = max_map_length
        self._clock = clock
        self._memory = Memory()
        self._not_before = 0
        self.job_id = 0

    def join(self, job_id: int) -> None:
        """Start afresh as a new job: nothing is remembered from a former one."""
        self.job_id = job_id
        self.forget()

    def forget(self) -> None:
        """Drop all memory; the next turn reads the unfinished runs of this job again."""
        self._memory = Memory()
        self._reclaim = True

    def has_work(self) -> bool:
        """A glance, in one statement: whether a turn would find anything to do.

        For waking up without a ring. Alarms are not asked about: their moment is known.
        """
        with read(self._engine) as tx:
            seen = look(tx, self.job_id, lock=False)
        memory = self._memory
        if seen is None or self._reclaim or seen.shrinking or memory.book.mindful:
            return True
        if len(memory.ready) or memory.starters.waiting():
            return True  # slots may have come free without a word: another's task, a larger pool
        if (seen.paused, seen.holding) != (memory.paused, memory.holding_pools):
            return True
        due = seen.next_run_after
        is_due = due is not None and max(due, self._not_before) <= self._clock()
        if seen.awaited and memory.is_sweep_due(self._clock()):
            return True
        return seen.unclaimed or seen.ended or seen.fired or seen.assets or seen.wished or is_due

    def take_turn(self) -> Report:
        """Settle, decide, hand over, in one transaction.

        Raises:
            LeaseLost: the job was ended by others; nothing was written.
        """
        try:
            return transact(self._engine, self._turn, attempts=1)
        except BaseException:
            # The book may hold what was not committed, or lack what was.
            self.forget()
            raise

    def _turn(self, tx: Tx) -> Report:
        seen = look(tx, self.job_id)
        if seen is None:
            raise LeaseLost
        if seen.holding != self._memory.holding_pools:
            self.forget()  # what a pool counts has changed
        memory = self._memory
        turn = Turn(
            tx=tx,
            memory=memory,
            job_id=self.job_id,
            now=self._clock(),
            parallelism=self._parallelism,
            max_losses=self._max_losses,
            max_retry_delay_us=self._max_retry_delay_us,
            max_map_length=self._max_map_length,
        )
        if self._reclaim:
            memory.holding_pools = seen.holding
            self._recount(tx)
            runs.reread(tx, self.job_id)
        memory.ready.ages.now = turn.now
        memory.ready.ages.after_us = self._ageing_us
        self._note_pauses(turn, seen.paused)
        if seen.unclaimed or self._reclaim:
            adopt_runs(turn)
        if seen.wished:
            take_back(turn)
        if seen.ended or seen.wished:
            settle_outcomes(turn)
        if seen.fired:
            settle_events(turn)
        settle_alarms(turn)
        fail_fast(turn)
        due = seen.next_run_after
        if due is not None and max(due, self._not_before) <= turn.now:
            create_runs(turn)
        hold_back(turn)
        decide(turn)
        # Limits of runs are locked before pools, always: schedulers cannot deadlock.
        finish_runs(turn)
        start_runs(turn)
        hold_back(turn)
        decide(turn)
        finish_runs(turn)
        enqueue(turn, seen.shrinking)
        self._tell_who_waits(turn, seen)
        # When all that is due must wait for a run to end, looking again at once is of no use.
        waits = turn.blocked and not turn.finished
        self._not_before = turn.now + _BLOCKED_US if waits else 0
        self._reclaim = False
        return self._report(turn, None if due is None else max(due, self._not_before))

    @staticmethod
    def _tell_who_waits(turn: Turn, seen: Look) -> None:
        """What ended in this turn, or was noted by others, may be what DAGs and triggers await."""
        if seen.assets or turn.produced:
            settle_assets(turn)
        if seen.awaited or turn.awaiting:
            fire_awaited(turn)

    @staticmethod
    def _recount(tx: Tx) -> None:
        for name, (was, now) in recount(tx).items():
            log.info("%s counted %d in use; it is %d", name, was, now)

    @staticmethod
    def _note_pauses(turn: Turn, paused: frozenset[str]) -> None:
        """Hold back the runs of paused DAGs, let go those that are paused no longer (S13)."""
        if paused == turn.memory.paused:
            return
        turn.memory.paused = paused
        turn.memory.may_start = True
        for run in turn.book.runs.values():
            run.paused = run.dag_id in paused
            turn.memory.ready.unpark(run)

    @staticmethod
    def _report(turn: Turn, next_run_after: int | None) -> Report:
        alarms = turn.book.alarms
        due = [alarms[0].due_at] if alarms else []
        due += [at for at in (next_run_after, turn.memory.start_at) if at is not None]
        return Report(
            more=turn.more,
            handoffs=turn.handoffs,
            callbacks=turn.callbacks,
            deadlines=turn.deadlines,
            deferred=turn.deferred,
            wished=turn.wished,
            starving=turn.starving,
            finished=turn.finished,
            ended=turn.ended,
            in_flight=turn.book.in_flight,
            told_others=turn.told_others,
            sweep_at=turn.sweep_at,
            next_due=min(due, default=None),
        )
