"""How a trigger is ended that is not over: cancelled until it ends, or else left where it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from roost.triggerer.case import Case, TellFn
from roost.triggerer.pooled import Pool
from roost.triggerer.steps import Steps

__all__ = ["Canceller"]

log = logging.getLogger(__name__)

_INSIST_S = 1.0
_INSIST_TIMES = 5
_AFTERWARDS_S = 1.0  # that run() has behind its event
_BATCH = 500


class Canceller:
    """Ends triggers without a report.

    Args:
        pool: those of them that are polled for have a seat there.
        unmet: told of each that nobody waits for any more.
        forget: told of each that has ended, or is taken for ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        unmet: TellFn,
        forget: Callable[[Case], None],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._unmet = unmet
        self._forget = forget

    def cancel(self, case: Case, times: int = 0) -> None:
        """End a trigger; ask again, for the given time, while it ignores being cancelled."""
        case.leaving = True
        if case.seat is not None:
            if case.over:
                self._unmet(case, case.seat.trigger)
            self._pool.drop(case)
            self._forget(case)
        task = case.task
        if task is None or task.done() or not case.started or case.cleaning:
            return  # a case that has not started yet sees that it is leaving
        if times >= _INSIST_TIMES:
            log.error(
                "trigger %d (%s) does not end when cancelled and is dropped; "
                "let CancelledError pass in run()",
                case.trigger_id, case.label,
            )  # fmt: skip
            self._drop(case, task)
            return
        task.cancel()
        self._loop.call_later(_INSIST_S, self.cancel, case, times + 1)

    def cancel_soon(self, case: Case) -> asyncio.TimerHandle:
        """Bound what a trigger does behind its event."""
        return self._loop.call_later(_AFTERWARDS_S, self.cancel, case)

    async def cancel_all(self, cases: Mapping[int, Case], grace_s: float) -> None:
        """End all of these, and wait for those that clean up, at most for so long."""
        for count, case in enumerate(list(cases.values())):
            self.cancel(case)
            if count % _BATCH == 0:
                await asyncio.sleep(0)
        tasks = [case.task for case in cases.values() if case.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    def _drop(self, case: Case, task: asyncio.Task[None]) -> None:
        """Take no further step of a trigger that refuses to end."""
        coroutine = task.get_coro()
        if isinstance(coroutine, Steps):
            coroutine.abandon()
            task.cancel()  # so that there is a next step
        self._forget(case)
