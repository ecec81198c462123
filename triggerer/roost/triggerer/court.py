"""Judges triggers that end or block their runner: who it was, and what becomes of it (D5, D20).

What the keepers of the runners tell is weighed here (:mod:`roost.triggerer.strikes` has the rule),
written into the triggers' rows, and followed by a hold, by a move to the runner apart, or by the
failure of the trigger's task. The lanes ask before they give a trigger to a runner, and which one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from functools import partial

from roost.models.engine import Tx
from roost.models.queries import triggers
from roost.support.clock import now_us
from roost.support.service import Wake
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.database import Database
from roost.triggerer.death import Death
from roost.triggerer.imports import Imports
from roost.triggerer.messages import Blocked
from roost.triggerer.strikes import (
    APART,
    HANG_S,
    HOLD_S,
    NEVER,
    ROOM_S,
    STRIKES,
    Strikes,
    aside_s,
    failure,
    name_of,
)
from roost.triggerer.suspects import End, Suspects
from roost.triggerer.ward import Ward

__all__ = ["Court"]

log = logging.getLogger(__name__)

_JUDGED = 500


class Court:
    """Who may run, and where, of the triggers of one incarnation of a triggerer.

    Args:
        wards: the runner of healthy triggers, and the one for those with strikes.
        job_id: the lease under which strikes are written.
        strike_after: seconds of blocking that are a strike.
        specs: reads these triggers, as far as they are still ours.
        take_back: has these go on in no runner.
        on_failed: takes the failure of a trigger that ended or blocked its runner too often.
        on_import: takes what imports take long, each with how many more triggers wait for it.
        wake: set when there is something to judge.
    """

    def __init__(
        self,
        database: Database,
        wards: tuple[Ward, Ward],
        job_id: int,
        *,
        strike_after: float,
        specs: Callable[[Iterable[int], Tx], list[TriggerSpec]],
        take_back: Callable[[Ward, list[int]], Awaitable[None]],
        on_failed: Callable[[TriggerReport], None],
        on_import: Callable[[Blocked, int], None],
        wake: Wake,
    ) -> None:
        self._db = database
        self._wards = wards
        self._job_id = job_id
        self._specs = specs
        self._take_back = take_back
        self._on_failed = on_failed
        self._wake = wake
        #: Somebody does not run where it belongs; whoever sees to that clears it.
        self.moved = False
        self._strikes = Strikes(strike_after)
        self._suspects = Suspects()
        self._accused: list[triggers.Strike] = []
        self._imports = Imports(database, job_id, on_import)
        self._ended: set[int] = set()  # accused of more than a block
        self._apart: set[int] = set()  # known to have so many strikes

    # -- who may run, and where ----------------------------------------------------------------

    def ward_of(self, trigger_id: int) -> Ward:
        """The runner that a trigger belongs to."""
        healthy, apart = self._wards
        return apart if trigger_id in self._apart or trigger_id in self._suspects.apart else healthy

    def holds(self, trigger_id: int, epoch: int, now: float) -> bool:
        """Whether no runner must be given this trigger yet; ``now`` is monotonic."""
        return self._strikes.holds(trigger_id, epoch, now)

    def belongs(self, ward: Ward, trigger_id: int, epoch: int, now: float) -> bool:
        """Whether a trigger may run in this runner at this monotonic moment."""
        return ward is self.ward_of(trigger_id) and not self.holds(trigger_id, epoch, now)

    def held_back(self, now: float) -> int:
        """How many will run again, but not now."""
        return self._strikes.held_back(now)

    def next_s(self, now: float) -> float:
        """Seconds until the next one may run again; infinite when none is held back."""
        return self._strikes.next_s(now)

    def keep(self, held: Mapping[int, int]) -> None:
        """Forget every trigger that is not held any more; its epoch by id."""
        self._strikes.keep(held)
        self._suspects.keep(held)
        self._apart &= held.keys()
        self._ended &= held.keys()

    def admit(self, specs: list[TriggerSpec]) -> list[TriggerSpec]:
        """Those that may run; the tasks of those that cannot, or must not, fail at once."""
        return [spec for spec in specs if self._admits(spec)]

    def _admits(self, spec: TriggerSpec) -> bool:
        if spec.error is not None:
            self._strikes.hold(spec.trigger_id, spec.epoch, NEVER)
            if spec.watcher:  # no task can fail for it
                log.error(
                    "trigger %d (%s) does not run: %s", spec.trigger_id, name_of(spec), spec.error
                )
                return False
            self._on_failed(TriggerReport(spec.trigger_id, spec.epoch, "failed", error=spec.error))
            return False
        if spec.strikes >= APART:
            self._apart.add(spec.trigger_id)
        if spec.strikes < STRIKES or self._is_back(spec):
            return True
        self._fail(spec, spec.strikes, spec.trouble)  # who struck it last could not say so any more
        return False

    def _is_back(self, spec: TriggerSpec) -> bool:
        """A watcher's trigger that was put aside for a while, and is tried again (D13)."""
        now = time.monotonic()
        was_aside = self._strikes.held_before(spec.trigger_id, spec.epoch)
        return bool(spec.watcher) and was_aside and not self.holds(spec.trigger_id, spec.epoch, now)

    # -- what is told --------------------------------------------------------------------------

    def blocked(self, ward: Ward, note: Blocked) -> None:
        """A trigger keeps its runner's loop from turning, or has done so (D20)."""
        if note.trigger_id is None:
            return
        if note.importing:
            self._imports.put(note)
            self._wake.set()
            return
        seconds = note.blocked_us / 1e6
        trouble = f"blocked its runner for {seconds:.2f} s at {note.where}"
        for one, epoch in ward.all_with(note.trigger_id).items():
            strike = note.over and self._strikes.block(one, seconds, ward.apart)
            self._accused.append(triggers.Strike(one, epoch, int(strike), trouble))
        self._wake.set()

    async def label(self, note: Blocked) -> None:
        """Put into a note whose its trigger is, where that is still to be had."""
        await self._imports.label(note)

    def accuse(self, ward: Ward, death: Death) -> None:
        """A runner ended that nobody had asked to: its triggers' doing, if it can be told whose."""
        how = f"the runner {death.how}" + (", while its code was imported" * death.importing)
        if death.culprit is not None and death.sure:
            found: Set[int] = ward.all_with(death.culprit).keys()
        else:
            found = self._found(ward, death, how)
        if found and death.importing and death.culprit is not None:
            self._imports.died(death.culprit, how)
            return
        for one in found:
            epoch = ward.running[one]
            self._strikes.hold(one, epoch, NEVER)  # until it is judged
            self._ended.add(one)
            self._accused.append(triggers.Strike(one, epoch, 1, how))

    def _found(self, ward: Ward, death: Death, how: str) -> Set[int]:
        """Who has ended a runner, if that is beyond doubt now; else some run apart, to find it."""
        tried = set(self._suspects.apart)
        on_trial = ward.apart and not tried.isdisjoint(ward.running)
        may_be_one = death.culprit is not None or death.suspicious or (death.outside and on_trial)
        if not may_be_one or not ward.running:
            return set()
        end = _end_of(ward, death)
        found = self._suspects.died(end)
        self.moved = True
        self._make_room(death.hung, rests=bool(found))
        if not found:
            _log_trial(how, end, tried, self._suspects.apart)
        return found

    def _make_room(self, hung: bool, rests: bool) -> None:
        """Let suspects be alone in the runner apart until they have had time to do it again.

        Args:
            hung: that takes a while.
            rests: whom we make room for is held back first.
        """
        until = time.monotonic() + (HANG_S if hung else ROOM_S) + HOLD_S * rests
        others = self._apart - self._suspects.apart
        for ward in self._wards:
            for one, epoch in ward.running.items():
                if one in others:
                    self._strikes.hold(one, epoch, until)
        # Also who rests: of several culprits there is always one whose time is just over.
        self._strikes.hold_on(others, until)

    # -- what follows ---------------------------------------------------------------------------

    async def judge(self) -> None:
        """Strike whom there is something against; tell whose triggers they were, fail the worst."""
        of_imports = await self._imports.accused()
        self._ended.update(one.trigger_id for one in of_imports if one.strikes)
        self._accused += of_imports
        accused: dict[int, triggers.Strike] = {}
        for one in self._accused:
            before = accused.get(one.trigger_id)
            count = one.strikes + (before.strikes if before else 0)
            accused[one.trigger_id] = one._replace(strikes=count)
        self._accused.clear()
        listed = list(accused.values())
        for start in range(0, len(listed), _JUDGED):
            await self._strike(listed[start : start + _JUDGED])

    async def _strike(self, accused: list[triggers.Strike]) -> None:
        strike = partial(triggers.strike, job_id=self._job_id, strikes=accused, now=now_us())
        found = await self._db.until_done(strike)
        struck = {one.trigger_id: one for one in accused if one.strikes and one.trigger_id in found}
        if not struck:
            return
        await self._end([one for one in struck if found[one] >= STRIKES])
        for spec in await self._db.reading(partial(self._specs, list(struck))):
            count, trouble = found[spec.trigger_id], struck[spec.trigger_id].trouble
            log.error(
                "trigger %d (%s) ended or blocked its runner, time %d of %d: %s",
                spec.trigger_id, name_of(spec), min(count, STRIKES), STRIKES, trouble,
            )  # fmt: skip
            if count >= STRIKES:
                self._fail(spec, count, trouble)
            elif count >= APART:
                self._apart.add(spec.trigger_id)
                self._strikes.hold(spec.trigger_id, spec.epoch, 0)
            elif spec.trigger_id in self._ended:
                self._strikes.hold(spec.trigger_id, spec.epoch, time.monotonic() + HOLD_S)
        self._ended -= struck.keys()
        self.moved = True

    async def _end(self, trigger_ids: list[int]) -> None:
        """Have these go on in no runner, before anything else becomes of them.

        Once its failure is stored a trigger is taken for one that has ended by itself.
        """
        for ward in self._wards:
            if its := [one for one in trigger_ids if one in ward.running]:
                await self._take_back(ward, its)

    def _fail(self, spec: TriggerSpec, strikes: int, trouble: str | None) -> None:
        """It has had its last strike: its task fails, a watcher is put aside for a while."""
        if spec.watcher:
            pause = aside_s(strikes)
            self._apart.add(spec.trigger_id)
            self._strikes.hold(spec.trigger_id, spec.epoch, time.monotonic() + pause)
            log.error(
                "trigger %d (%s) is put aside for %.0f s: %s",
                spec.trigger_id, name_of(spec), pause, trouble,
            )  # fmt: skip
            return
        self._strikes.hold(spec.trigger_id, spec.epoch, NEVER)
        self._on_failed(failure(spec, trouble))


def _end_of(ward: Ward, death: Death) -> End:
    """What there is to be said of who may have ended a runner that is not empty."""
    one = death.culprit if death.culprit in ward.running else next(iter(ward.running))
    unit = ward.of_same_code(one) if death.importing else ward.all_with(one)
    return End(
        running=ward.running.keys(),
        apart=ward.apart,
        unit=unit.keys(),
        seen=one == death.culprit,
        fresh=ward.was_only(one, unit),
        outside=death.outside,
    )


def _log_trial(how: str, end: End, before: set[int], tried: set[int]) -> None:
    """Say who is tried now, for the end of a runner of which nobody is found guilty yet."""
    step = f", in a step of trigger {min(end.unit)}" if end.seen else ""
    who = f"trigger {min(tried)} runs" if len(tried) == 1 else f"{len(tried)} triggers run"
    if tried == before:
        log.error("%s%s: %s apart still to see who it was", how, step, who)
    elif len(tried) == 1 or (end.seen and tried == end.unit):
        log.error("%s%s: %s apart now to see who it was", how, step, who)
    else:
        log.error("%s, and it is not seen which trigger did that: half run apart now", how)
