"""Which triggers ended their runner, or blocked it until it was killed, and how often (D5).

Every runner is given all triggers of its predecessor. Were a culprit among them each time, no
other trigger would ever live longer than the culprit allows. So it is held back for a while, for
longer the second time, and with the third strike it has failed: however many culprits there are,
the deaths they cause are bounded, and everything else gets on.
"""

from __future__ import annotations

from collections.abc import Mapping

from roost.support.wire import TriggerReport, TriggerSpec

__all__ = ["HOLD_S", "STRIKES", "Strikes", "failure", "name_of"]

STRIKES = 3
# After the first strike; twice as long after the second.
HOLD_S = 4.0
_NEVER = float("inf")


class Strikes:
    """The strikes of one incarnation's triggers. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[int, int]] = {}  # epoch and strikes by id
        self._until: dict[int, float] = {}  # held back; for ever: failed

    def add(self, trigger_id: int, epoch: int, now: float) -> int:
        """Strike this trigger and hold it back; gives its strikes under this claim."""
        of_epoch, count = self._counts.get(trigger_id, (epoch, 0))
        count = count + 1 if of_epoch == epoch else 1
        self._counts[trigger_id] = epoch, count
        self._until[trigger_id] = _NEVER if count >= STRIKES else now + HOLD_S * count
        return count

    def holds(self, trigger_id: int, epoch: int, now: float) -> bool:
        """Whether a runner must not be given this trigger yet."""
        if now >= self._until.get(trigger_id, now):
            return False
        return self._counts[trigger_id][0] == epoch

    def next_s(self, now: float) -> float:
        """Seconds until the next one may run again; infinite when none is held back."""
        return min((until - now for until in self._until.values() if until > now), default=_NEVER)

    def held_back(self, now: float) -> int:
        """How many will run again, but not now."""
        return sum(now < until < _NEVER for until in self._until.values())

    def keep(self, held: Mapping[int, int]) -> None:
        """Forget every trigger that is not held any more."""
        for trigger_id in self._counts.keys() - held.keys():
            del self._counts[trigger_id]
            del self._until[trigger_id]


def name_of(spec: TriggerSpec) -> str:
    """The trigger and its task, for people."""
    mapped = "" if spec.map_index < 0 else f"[{spec.map_index}]"
    return f"{spec.classpath} of {spec.dag_id}.{spec.task_id}{mapped} run {spec.run_id}"


def failure(spec: TriggerSpec, how: str) -> TriggerReport:
    """The report of a trigger that has had its last strike.

    Args:
        spec: the trigger.
        how: what became of the last runner: ``exited with code 9``.
    """
    error = (
        f"trigger {spec.trigger_id} ({name_of(spec)}) ended or blocked its runner {STRIKES} times, "
        f"the last one {how}: await instead of blocking, and raise instead of exiting"
    )
    return TriggerReport(spec.trigger_id, spec.epoch, "failed", error=error)
