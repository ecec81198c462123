"""PooledTrigger: base of triggers that are asked about together (poll lane)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from typing import ClassVar, Self, TypeVar

from roost.dag.trigger import BaseTrigger, TriggerEvent
from roost.exceptions import RoostException

__all__ = ["PooledTrigger", "answer_for", "events_of", "next_pause"]

T = TypeVar("T", bound=BaseTrigger)
A = TypeVar("A")

_SHORTEST_PAUSE_S = 0.01
# To which errors stretch a shorter interval.
_LONGEST_PAUSE_S = 60.0


class PooledTrigger(BaseTrigger):
    """A trigger without a coroutine of its own: N that wait for one endpoint are one poll.

    A subclass says what it wants to know (:meth:`poll_key`), whom to ask (:meth:`poll_group`), and
    how to ask about many at once (:meth:`poll_many`). Where there is a pool, in the triggerer,
    :meth:`run`, :meth:`cleanup` and :meth:`on_stored` are not called, and a trigger that waits
    costs what it holds.

    The attributes may be set by a class or by each of its triggers.

    Attributes:
        poll_interval: seconds between two polls about a trigger; the first follows at once.
        max_poll_interval: given, the interval grows up to this while nothing happens: to a tenth
            of the time since a trigger of the group fired or joined it.
        poll_timeout: seconds after which a poll is given up; that is an error like others.
        poll_retries: so many errors in a row are forgiven, with pauses that double; the next one
            fails the trigger. A RoostException is never forgiven: it is no passing trouble.
        max_batch: most keys of one call of poll_many.
        max_poll_rate: most calls of poll_many in a second for one group; 0 is no limit.
    """

    poll_interval: float = 5.0
    max_poll_interval: float | None = None
    poll_timeout: ClassVar[float] = 30.0
    poll_retries: ClassVar[int] = 5
    max_batch: ClassVar[int] = 1_000
    max_poll_rate: ClassVar[float] = 20.0

    @abstractmethod
    def poll_key(self) -> str:
        """What this trigger asks: triggers of one group and key are answered together."""

    def poll_group(self) -> str:
        """Whom it asks, e.g. a conn_id: triggers of one class and group are polled together."""
        return ""

    @classmethod
    @abstractmethod
    async def poll_many(
        cls, triggers: Mapping[str, Self]
    ) -> Mapping[str, TriggerEvent | BaseException]:
        """Ask once about many.

        Args:
            triggers: one trigger for each key, all of one group. Iterating gives the keys.

        Returns:
            The event of each key that has come true; what is not in it goes on waiting. An
            exception as a value is an error of that key alone.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same, alone: for ``dags test`` and for ``roost.testing``."""
        import asyncio  # late: sensors make such triggers in processes that never run them

        key, errors = self.poll_key(), 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            found: object = None
            try:
                async with asyncio.timeout(self.poll_timeout):
                    found = answer_for(await type(self).poll_many({key: self}), key, type(self))
                if isinstance(found, BaseException):
                    raise found
            except RoostException:
                raise
            except Exception:
                errors += 1
                if errors > self.poll_retries:
                    raise
            else:
                errors = 0
            if isinstance(found, TriggerEvent):
                yield found
                return
            quiet = loop.time() - began
            await asyncio.sleep(
                next_pause(self.poll_interval, self.max_poll_interval, quiet, errors)
            )


def next_pause(interval: float, longest: float | None, quiet: float, errors: int) -> float:
    """Seconds until the next poll.

    Args:
        interval: ``poll_interval``.
        longest: ``max_poll_interval``.
        quiet: seconds in which nothing has happened.
        errors: how many polls in a row have failed.
    """
    pause = max(interval, _SHORTEST_PAUSE_S)
    if longest is not None:
        pause = max(pause, min(longest, quiet / 10))
    return max(pause, min(pause * float(1 << min(errors, 16)), _LONGEST_PAUSE_S))


def answer_for(found: object, key: str, cls: type) -> object:
    """What ``poll_many`` has said about a key; None: nothing.

    Raises:
        RoostException: it has returned something else than it should.
    """
    if not isinstance(found, Mapping):
        raise RoostException(
            f"{cls.__name__}.poll_many() returned {type(found).__name__}; "
            "return a dict of events by key, empty while nothing has come true"
        )
    value: object = found.get(key)
    if value is None or isinstance(value, TriggerEvent | BaseException):
        return value
    raise RoostException(
        f"{cls.__name__}.poll_many() returned {type(value).__name__} for {key[:80]!r}; "
        "give TriggerEvent(payload)"
    )


def events_of(
    triggers: Mapping[str, T],
    asked: Mapping[str, str],
    answers: Mapping[str, A | BaseException],
    event_of: Callable[[T, A], TriggerEvent | BaseException | None],
) -> dict[str, TriggerEvent | BaseException]:
    """What ``poll_many`` returns where several keys may ask the same.

    Args:
        triggers: by key.
        asked: what each key asks.
        answers: to each thing that is asked.
        event_of: what an answer means to a trigger; None: not yet.
    """
    found: dict[str, TriggerEvent | BaseException] = {}
    for key, trigger in triggers.items():
        answer = answers[asked[key]]
        event = answer if isinstance(answer, BaseException) else event_of(trigger, answer)
        if event is not None:
            found[key] = event
    return found
