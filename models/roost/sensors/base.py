"""What all sensors share: looking, waiting in between, and giving up (S29, D24)."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from roost.dag import knobs
from roost.dag.operator import BaseOperator
from roost.dag.trigger import BaseTrigger
from roost.exceptions import DagError, FailTask, SensorTimeout, SkipTask, TaskTimeout
from roost.support.clock import SECOND, duration_us, from_us, now_us
from roost.support.user_settings import default_deferrable
from roost.triggers.temporal import DateTimeTrigger

__all__ = ["BaseSensorOperator", "PokeReturnValue", "SensorMode"]

SensorMode = Literal["poke", "reschedule"]
_LONGEST_DOUBLING = 40


class PokeReturnValue(NamedTuple):
    """What ``poke`` may return instead of a bool: with a value that is kept as an XCom."""

    is_done: bool
    xcom_value: Any = None

    def __bool__(self) -> bool:
        return self.is_done


class BaseSensorOperator(BaseOperator):
    """A task that waits until something is so. Subclass it and write :meth:`poke`.

    Between two looks it waits in one of three ways:

    - ``mode="poke"`` sleeps in the task's process and keeps its slots;
    - ``mode="reschedule"`` gives the slots back and ends the process until the next look: what
      ``poke`` left in ``self`` is gone by then;
    - ``deferrable=True`` leaves the looking to a trigger, which holds no slot and starts no
      process; a sensor that has no trigger waits as with ``reschedule``.

    Args:
        poke_interval: time between two looks, a timedelta or seconds.
        timeout: the longest wait from the first look of a try on, over all looks, a timedelta or
            seconds; then the sensor fails with ``SensorTimeout`` and is not tried again. None
            waits for ever.
        soft_fail: be skipped instead of failing when the time is up or ``poke`` raises FailTask.
        mode: how to wait; given, it decides unless ``deferrable`` is given, too.
        exponential_backoff: double the interval after each look.
        max_wait: the longest interval then, a timedelta or seconds.
        silent_fail: an error that ``poke`` raises is logged and counts as "not yet".
        never_fail: an error that ``poke`` raises skips the sensor.
        deferrable: whether to defer; None: where ``mode`` is not given and the sensor has a
            trigger, ``core.default_deferrable`` says it.
        **kwargs: see BaseOperator.
    """

    #: Whether ``core.default_deferrable`` applies to this class.
    has_trigger: ClassVar[bool] = False

    def __init__(
        self,
        *,
        poke_interval: timedelta | float = 60.0,
        timeout: timedelta | float | None = timedelta(days=7),
        soft_fail: bool = False,
        mode: SensorMode | None = None,
        exponential_backoff: bool = False,
        max_wait: timedelta | float | None = None,
        silent_fail: bool = False,
        never_fail: bool = False,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        of = f"task {self.task_id!r}"
        self.poke_interval = knobs.duration(of, "poke_interval", poke_interval)
        self.timeout = knobs.maybe_duration(of, "timeout", timeout)
        self.max_wait = knobs.maybe_duration(of, "max_wait", max_wait)
        if mode is not None and mode not in get_args(SensorMode):
            raise DagError(f"{of}: mode must be 'poke' or 'reschedule', not {mode!r}")
        if soft_fail and never_fail:
            raise DagError(f"{of}: give soft_fail or never_fail, not both")
        self.soft_fail = soft_fail
        self.exponential_backoff = exponential_backoff
        self.silent_fail = silent_fail
        self.never_fail = never_fail
        if deferrable is None:
            deferrable = mode is None and self.has_trigger and default_deferrable()
        self.deferrable = deferrable
        self.mode: SensorMode = mode or "poke"

    # -- what a subclass writes

    def poke(self, context: dict[str, Any]) -> bool | PokeReturnValue:
        """Look once: whether what is waited for is so."""
        raise NotImplementedError(f"{type(self).__name__} has no poke() method")

    def make_trigger(self, context: dict[str, Any]) -> BaseTrigger | None:
        """What a deferrable sensor waits for; None: it looks again and again by itself.

        Its event is given to :meth:`execute_complete`.
        """
        return None

    def execute_complete(self, context: dict[str, Any], event: Any = None) -> Any:
        """Called with the trigger's event; what it returns is kept as an XCom."""

    # -- waiting

    def execute(self, context: dict[str, Any]) -> Any:
        """Look, and wait until what is waited for is so."""
        return self.poke_again(context, began=now_us(), looks=0)

    def poke_again(
        self, context: dict[str, Any], event: Any = None, *, began: int, looks: int
    ) -> Any:
        """Go on after a wait in the timer lane.

        Args:
            context: of this task.
            event: the moment that was waited for.
            began: when the first look began, in microseconds.
            looks: how many there have been.
        """
        while True:
            found = self._look(context)
            looks += 1
            if found:
                self.log.info("found after %d looks", looks)
                return found.xcom_value if isinstance(found, PokeReturnValue) else None
            left = self._left(began)
            if left is not None and left <= timedelta(0):
                raise self._late()
            if self.deferrable and (trigger := self.make_trigger(context)) is not None:
                self.log.info("not yet: waiting for %r", trigger)
                self.defer(
                    trigger=trigger,
                    method_name="execute_complete",
                    timeout=left if looks > 1 else self.timeout,
                    on_timeout="skip" if self.soft_fail or self.never_fail else "fail",
                )
            pause = self.next_interval(looks)
            if left is not None:
                pause = min(pause, left)  # one last look when the time is up
            if self.deferrable or self.mode == "reschedule":
                moment = from_us(now_us() + duration_us(pause))
                self.log.info("not yet: next look at %s", moment.isoformat())
                self.defer(
                    trigger=DateTimeTrigger(moment),
                    method_name="poke_again",
                    kwargs={"began": began, "looks": looks},
                )
            time.sleep(pause.total_seconds())

    def next_interval(self, looks: int) -> timedelta:
        """How long to wait after so many looks."""
        pause = self.poke_interval
        if self.exponential_backoff:
            try:
                pause *= 2 ** min(looks - 1, _LONGEST_DOUBLING)
            except OverflowError:
                pause = timedelta.max
            if self.max_wait is not None:
                pause = min(pause, self.max_wait)
        return min(pause, timedelta(days=365))

    def longest_interval(self) -> float | None:
        """How far a trigger may stretch ``poke_interval``, in seconds; None: not at all."""
        if not self.exponential_backoff:
            return None
        longest = self.max_wait if self.max_wait is not None else timedelta(hours=1)
        return max(longest, self.poke_interval).total_seconds()

    def _look(self, context: dict[str, Any]) -> bool | PokeReturnValue:
        try:
            return self.poke(context)
        except SkipTask:
            raise
        except (FailTask, TaskTimeout) as error:
            if self.soft_fail or self.never_fail:
                raise SkipTask(f"skipped instead of failing: {error}") from error
            raise
        except Exception as error:
            if self.silent_fail:
                self.log.exception("the look failed; it counts as not yet")
                return False
            if self.never_fail:
                raise SkipTask(f"skipped instead of failing: {error}") from error
            raise

    def _left(self, began: int) -> timedelta | None:
        """How much of the time-out is left."""
        if self.timeout is None:
            return None
        return self.timeout - timedelta(microseconds=now_us() - began)

    def _late(self) -> Exception:
        waited = f"waited for {duration_us(self.timeout or timedelta(0)) / SECOND:g} s in vain"
        if self.soft_fail or self.never_fail:
            return SkipTask(waited)
        return SensorTimeout(waited)
