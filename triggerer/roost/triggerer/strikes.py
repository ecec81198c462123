"""What triggers did to their runner, and what follows (D5, D20).

Every runner is given all triggers of its predecessor. Were a culprit among them each time, no
other trigger would ever live longer than the culprit allows. So its *strikes* are counted in its
row, which outlives this process: with the first it is held back for a while, with the second it
moves to a runner apart, with the third it has failed; a watcher, which has no task, is put aside
for ever longer instead. However many culprits there are, the deaths
they cause are bounded, and everything else gets on.

Who ends a runner outside of its loop - in a thread, by a child process - is not seen at it, and a
signal may come from anywhere. Then it is looked for (:mod:`roost.triggerer.suspects`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Set

from roost.support.labels import task_label, watcher_label
from roost.support.trigger_wire import TriggerReport, TriggerSpec

__all__ = [
    "APART",
    "HANG_S",
    "HOLD_S",
    "NEVER",
    "ROOM_S",
    "STRIKES",
    "Strikes",
    "aside_s",
    "failure",
    "longest_aside_s",
    "name_of",
]

STRIKES = 3
# With so many strikes a trigger runs apart from those that have none.
APART = 2
HOLD_S = 4.0
# As long as who is tried alone has, on a busy machine, from the end of a runner: the next one waits
# up to 1.5 s before it starts, and then it has to be ended again.
ROOM_S = 8.0
# As long as a runner takes to start, hang, and be killed for that on a busy machine.
HANG_S = 15.0
ASIDE_S = 60.0
NEVER = float("inf")


class Strikes:
    """Who is held back, and for how long who has blocked; times are of a monotonic clock.

    Args:
        strike_after: seconds of blocking that are a strike.
    """

    def __init__(self, strike_after: float = 1.0) -> None:
        self._strike_after = strike_after
        self._until: dict[int, tuple[int, float]] = {}  # epoch and end of the hold by id
        self._blocked: dict[int, float] = {}  # seconds that are no strike yet

    def hold(self, trigger_id: int, epoch: int, until: float) -> None:
        """Give this trigger to no runner until then."""
        self._until[trigger_id] = epoch, until

    def hold_on(self, trigger_ids: Set[int], until: float) -> None:
        """Hold those of these that are, or were, held back until this moment at least."""
        for trigger_id in trigger_ids & self._until.keys():
            epoch, before = self._until[trigger_id]
            self._until[trigger_id] = epoch, max(before, until)

    def holds(self, trigger_id: int, epoch: int, now: float) -> bool:
        """Whether a runner must not be given this trigger yet."""
        of_epoch, until = self._until.get(trigger_id, (epoch, now))
        return of_epoch == epoch and now < until

    def held_before(self, trigger_id: int, epoch: int) -> bool:
        """Whether this trigger was held back under this claim."""
        return self._until.get(trigger_id, (None, 0.0))[0] == epoch

    def next_s(self, now: float) -> float:
        """Seconds until the next one may run again; infinite when none is held back."""
        ends = (until for _, until in self._until.values())
        return min((until - now for until in ends if until > now), default=NEVER)

    def held_back(self, now: float) -> int:
        """How many will run again, but not now."""
        return sum(now < until < NEVER for _, until in self._until.values())

    def block(self, trigger_id: int, seconds: float, apart: bool) -> bool:
        """A trigger has blocked its runner; True when that is a strike.

        Args:
            trigger_id: who.
            seconds: for how long.
            apart: it runs with its like: only a long block counts, short ones do not add up.
        """
        before = 0.0 if apart else self._blocked.pop(trigger_id, 0.0)
        if before + seconds >= self._strike_after:
            return True
        if not apart:
            self._blocked[trigger_id] = before + seconds
        return False

    def keep(self, held: Mapping[int, int]) -> None:
        """Forget every trigger that is not held any more."""
        for trigger_id in self._until.keys() - held.keys():
            del self._until[trigger_id]
        for trigger_id in self._blocked.keys() - held.keys():
            del self._blocked[trigger_id]


def name_of(spec: TriggerSpec) -> str:
    """The trigger and its task, for people."""
    return f"{spec.classpath} of {_whose(spec)}"


def _whose(spec: TriggerSpec) -> str:
    """The task or watcher that a trigger belongs to, for people."""
    if spec.watcher:
        return watcher_label(spec.watcher)
    return task_label(spec.dag_id, spec.task_id, spec.map_index, spec.run_id)


def aside_s(strikes: int) -> float:
    """How long a watcher is put aside that has so many strikes: no task can fail for it (D13)."""
    return longest_aside_s(strikes) * random.uniform(0.6, 1.0)  # noqa: S311 - to spread, not to hide


def longest_aside_s(strikes: int) -> float:
    """The longest that :func:`aside_s` says."""
    return ASIDE_S * 1.25 * 2.0 ** min(max(strikes - STRIKES, 0), 6)


def failure(spec: TriggerSpec, trouble: str | None) -> TriggerReport:
    """The report of a trigger that has had its last strike.

    Args:
        spec: the trigger.
        trouble: what it did the last time: ``the runner exited with code 9``.
    """
    error = (
        f"trigger {spec.trigger_id} ({name_of(spec)}) ended or blocked its runner {STRIKES} times, "
        f"the last time: {trouble}. Await instead of blocking, move what blocks to "
        "asyncio.to_thread, and raise instead of exiting"
    )
    return TriggerReport(spec.trigger_id, spec.epoch, "failed", error=error)
