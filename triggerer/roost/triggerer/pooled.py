"""Triggers that are polled together: one task for a group of them, none for each.

A *group* is the triggers of one class (so of one version of its code), one ``poll_group()`` and
one pace. Its task polls all of them at once, in batches; who joins is polled at once, together
with who joins at the same time, and from then on with the others. A *seat* is one key of a group
with all triggers that wait for it.

What a poll does wrong - raise, hang, return nonsense - is counted for the seats it was about, and
fails only them, when it has gone on for too long. A poll is a task of its own, so one that will
not end is left behind. It counts as the work of one trigger of its batch: that one is named when
it blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from roost.dag.trigger import TriggerEvent
from roost.exceptions import RoostException
from roost.support.trigger_wire import TriggerReport
from roost.triggerer.case import CURRENT, Case, TellFn, explain, report_of
from roost.triggerer.messages import Together
from roost.triggers.pooled import PooledTrigger, answer_for, next_pause

__all__ = ["Pool", "Seat"]

log = logging.getLogger(__name__)

# Who joins within this time of each other is polled together.
GATHER_S = 0.05
_MOST_TURNS = 1_000

T = TypeVar("T")

_Place = tuple[type[PooledTrigger], str, float, float | None]


class Seat:
    """One key of a group, and who waits for it."""

    __slots__ = ("cases", "errors", "group", "key", "trigger")

    def __init__(self, group: Group, key: str, trigger: PooledTrigger) -> None:
        self.group = group
        self.key = key
        self.trigger = trigger  # of any of them: they ask the same
        self.cases: dict[int, Case] = {}
        self.errors = 0  # in a row


class Pool:
    """All pooled triggers of one loop.

    Args:
        report: takes what became of triggers.
        left: told of each that is in the pool no more because it was reported.
        together: told, before a poll of several, who they are, unless it was told so before.
        unmet: told of each whose wait ends without an event, before that is reported.
    """

    def __init__(
        self,
        report: Callable[[TriggerReport], None],
        left: Callable[[Case], None],
        together: Callable[[Together], None] = lambda told: None,
        unmet: TellFn | None = None,
    ) -> None:
        self._report = report
        self._left = left
        self.together = together
        self._unmet = unmet
        self.groups: dict[_Place, Group] = {}
        self.turns: dict[tuple[type[PooledTrigger], str], float] = {}  # next one, by endpoint
        self.polls = self.errors = 0

    def take(self, case: Case, trigger: PooledTrigger) -> None:
        """Wait for a trigger from now on.

        Raises:
            RoostException: its key, group or pace is none.
        """
        key, name = trigger.poll_key(), trigger.poll_group()
        cls, pace, most = type(trigger), trigger.poll_interval, trigger.max_poll_interval
        if not isinstance(key, str) or not isinstance(name, str):
            raise RoostException(f"{cls.__name__}: poll_key() and poll_group() must give texts")
        if not isinstance(pace, int | float) or not pace > 0:
            raise RoostException(f"{cls.__name__}: poll_interval must be seconds, not {pace!r}")
        place = (cls, name, float(pace), most)
        group = self.groups.get(place)
        if group is None:
            group = self.groups[place] = Group(self, place)
        group.join(case, key, trigger)

    def drop(self, case: Case) -> None:
        """Wait for a trigger no more; the others do not notice."""
        seat, case.seat = case.seat, None
        if seat is not None:
            del seat.cases[case.trigger_id]
            if not seat.cases:
                seat.group.remove(seat)

    def end(self, seat: Seat, report: TriggerReport) -> None:
        """Report the same of everybody who waits for a key."""
        cases = list(seat.cases.values())
        seat.cases.clear()
        seat.group.remove(seat)
        for case in cases:
            case.seat = None
            if report.kind == "failed" and self._unmet is not None:
                self._unmet(case, seat.trigger)
            self._report(
                msgspec.structs.replace(report, trigger_id=case.trigger_id, epoch=case.epoch)
            )
            self._left(case)

    def counts(self) -> tuple[int, int]:
        """Calls of poll_many since the last call of this, and in how many there were errors."""
        found = self.polls, self.errors
        self.polls = self.errors = 0
        return found


class Group:
    """Triggers that are polled together, and the task that does."""

    def __init__(self, pool: Pool, place: _Place) -> None:
        self._pool = pool
        self._place = place
        self._cls, self._name, self._interval, self._longest = place
        self._loop = asyncio.get_running_loop()
        self._seats: dict[str, Seat] = {}
        self._fresh: dict[str, Seat] = {}  # those that were never polled
        self._joined = asyncio.Event()
        self._joins = self._told_at = 0
        self._told: dict[int, tuple[int, int, int]] = {}  # polls that the supervisor knows
        self._changed_at = self._loop.time()
        self._errors = 0  # rounds in a row that brought nothing but errors
        name = f"pool {self._cls.__qualname__} {self._name}".rstrip()
        # Nobody's task: not that of the trigger which happens to be the first here.
        self._task = contextvars.Context().run(self._loop.create_task, self._run(), name=name)

    # -- who is here

    def join(self, case: Case, key: str, trigger: PooledTrigger) -> None:
        """Take one more; one that asks what others ask costs nothing but its place."""
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = self._fresh[key] = Seat(self, key, trigger)
            self._joined.set()
        seat.cases[case.trigger_id] = case
        case.seat = seat
        self._joins += 1
        self._changed_at = self._loop.time()

    def remove(self, seat: Seat) -> None:
        """A seat is empty; so may be the group."""
        del self._seats[seat.key]
        self._fresh.pop(seat.key, None)
        if not self._seats:
            del self._pool.groups[self._place]
            if asyncio.current_task() is not self._task:  # else it sees so itself
                self._task.cancel()

    # -- when to poll

    async def _run(self) -> None:
        try:
            await self._poll_on()
        except Exception as error:  # nobody would ever poll these again
            log.exception("the pool of %s failed", self._cls.__qualname__)
            for seat in list(self._seats.values()):
                self._fail(seat, explain(error, _secrets(seat)))

    async def _poll_on(self) -> None:
        due = self._next_due()
        while self._seats:
            if self._fresh:
                await asyncio.sleep(GATHER_S)
                fresh, self._fresh = self._fresh, {}
                await self._round(list(fresh.values()))
            elif self._loop.time() >= due:
                failed = await self._round(list(self._seats.values()))
                self._errors = self._errors + 1 if failed else 0
                due = self._next_due()
            else:
                self._joined.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._joined.wait()

    def _next_due(self) -> float:
        now = self._loop.time()
        quiet = now - self._changed_at
        return now + next_pause(self._interval, self._longest, quiet, self._errors)

    async def _await_turn(self) -> None:
        """Keep to max_poll_rate, together with groups that ask the same endpoint."""
        rate, turns = self._cls.max_poll_rate, self._pool.turns
        if rate <= 0:
            return
        now = self._loop.time()
        if len(turns) > _MOST_TURNS:
            for old in [endpoint for endpoint, turn in turns.items() if turn < now]:
                del turns[old]
        endpoint = (self._cls, self._name)
        turn = max(now, turns.get(endpoint, now))
        turns[endpoint] = turn + 1 / rate
        if turn > now:
            await asyncio.sleep(turn - now)

    # -- polling

    async def _round(self, seats: list[Seat]) -> bool:
        """Poll these in batches; True when there was nothing but errors."""
        size = max(1, self._cls.max_batch)
        only_errors = True
        for start in range(0, len(seats), size):
            await self._await_turn()
            batch = [seat for seat in seats[start : start + size] if seat.cases]
            if batch:
                only_errors = await self._poll(batch) and only_errors
        return only_errors

    async def _poll(self, seats: list[Seat]) -> bool:
        """Ask once, and give everybody what was said; True when that were errors only."""
        self._pool.polls += 1
        triggers = {seat.key: seat.trigger for seat in seats}
        task = self._start(_ask(self._cls, triggers), self._one_of(seats))
        limit = self._cls.poll_timeout
        try:
            await asyncio.wait((task,), timeout=limit)
        finally:  # the time is over, or there is nobody left who waits for it
            late = not task.done()
            if late:
                self._leave_behind(task)
        found: object = None
        error: BaseException | None = None
        if late:
            error = TimeoutError(f"{self._cls.__name__}.poll_many() took over {limit:g} s")
        elif task.cancelled():
            error = asyncio.CancelledError()
        elif (error := task.exception()) is None:
            found = task.result()
        here = [seat for seat in seats if seat.cases]  # others have left meanwhile
        errors = sum(self._settle(seat, found, error) for seat in here)
        if errors:
            self._pool.errors += 1
        return errors == len(here)

    def _one_of(self, seats: list[Seat]) -> int:
        """The trigger that a poll is noted for; the supervisor knows for whom else it is."""
        one = next(iter(seats[0].cases))
        told = (self._joins, len(seats), next(iter(seats[-1].cases)))
        if self._told.get(one) != told:
            # Who has left since then does no harm. The others' notes are of former polls.
            if self._told_at != self._joins:
                self._told.clear()
                self._told_at = self._joins
            self._told[one] = told
            everybody = [number for seat in seats for number in seat.cases]
            if len(everybody) > 1:
                self._pool.together(Together(one, everybody))
        return one

    def _start(self, coro: Coroutine[Any, Any, T], trigger_id: int) -> asyncio.Task[T]:
        """A task that is noted as this trigger's, whose peers it works for, too."""
        context = contextvars.Context()
        context.run(CURRENT.set, trigger_id)
        return context.run(self._loop.create_task, coro)

    def _leave_behind(self, task: asyncio.Task[Any]) -> None:
        """Cancel a poll and do not wait for its end: it may refuse."""
        task.add_done_callback(_look_away)
        task.cancel()

    def _settle(self, seat: Seat, found: object, error: BaseException | None) -> bool:
        """What one key's share of a poll comes to; True when it is an error."""
        answer: object = error
        if error is None:
            try:
                answer = answer_for(found, seat.key, self._cls)
                if isinstance(answer, TriggerEvent):
                    case = next(iter(seat.cases.values()))
                    self._pool.end(seat, report_of(answer, self._cls.__name__, case))
                    self._changed_at = self._loop.time()
            except RoostException as wrong:
                answer = wrong
        if not isinstance(answer, BaseException):
            seat.errors = 0
            if seat.cases:
                seat.trigger.note("not yet")
            return False
        seat.errors += 1
        seat.trigger.note(explain(answer, _secrets(seat)).rpartition("\n")[2])
        passing = isinstance(answer, Exception) and not isinstance(answer, RoostException)
        if not passing:
            self._fail(seat, explain(answer, _secrets(seat)))
        elif seat.errors > self._cls.poll_retries:
            often = f"the poll failed {seat.errors} times in a row, the last time with\n"
            self._fail(seat, often + explain(answer, _secrets(seat)))
        elif seat.errors == 1:
            log.warning(
                "polling %s for %s failed and is tried again: %s",
                self._cls.__qualname__, next(iter(seat.cases.values())).label,
                explain(answer, _secrets(seat)).rpartition("\n")[2],
            )  # fmt: skip
        return True

    def _fail(self, seat: Seat, error: str) -> None:
        self._pool.end(seat, TriggerReport(0, 0, "failed", error=error))
        self._changed_at = self._loop.time()


def _secrets(seat: Seat) -> list[str]:
    return list({secret for case in seat.cases.values() for secret in case.secrets})


async def _ask(cls: type[PooledTrigger], triggers: dict[str, PooledTrigger]) -> object:
    asked: object = cls.poll_many(triggers)
    if not inspect.isawaitable(asked):
        raise RoostException(f"{cls.__name__}.poll_many() must be `async def`")
    return await asked


def _look_away(task: asyncio.Task[Any]) -> None:
    """Nobody wants to know what became of it."""
    if not task.cancelled():
        task.exception()
