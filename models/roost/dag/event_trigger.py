"""Triggers that go on after an event: the watchers of assets run them (D13)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import Any, NamedTuple

from roost.dag.trigger import BaseTrigger, TriggerEvent

__all__ = ["BaseEventTrigger", "StreamItem"]


class StreamItem(NamedTuple):
    """An item of a shared stream that the broker wants to hear of again (D14).

    Attributes:
        value: what every filter is given.
        ack: awaited when all that are fed have dealt with it and their events are stored; of items
            in the order in which they came.
        nack: awaited instead when somebody left or failed before: have the broker bring it again.
            None: it is simply not acknowledged.
    """

    value: Any
    ack: Callable[[], Awaitable[object]] | None = None
    nack: Callable[[], Awaitable[object]] | None = None


class BaseEventTrigger(BaseTrigger):
    """A trigger whose :meth:`run` yields an event whenever something has happened, for ever.

    An :class:`~roost.dag.watcher.AssetWatcher` runs it as long as a DAG that is not paused waits
    for its asset. After each ``yield``, ``run()`` goes on when the event is in the database, and
    not before: what comes next in it may acknowledge what the event tells of. A ``run()`` that
    ends, or raises, is begun anew after a while, by another object of the same arguments.

    After a hand-over to another triggerer an event may come twice, if ``run()`` does not know that
    it has been there. Give it a ``key`` (``TriggerEvent(payload, key=…)``): there is one event of a
    key and a watcher, whoever brings it and however often.
    """

    def shared_stream_key(self) -> Hashable | None:
        """What triggers of this class must agree in to be fed by one stream; None: each is run.

        Where it gives a key, and a watcher runs the trigger, the two methods below take the place
        of :meth:`run`: one poll feeds all with the same key on the same triggerer.
        """
        return None

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield whatever comes, for all: an async generator.

        Args:
            kwargs: the arguments of one of them.

        Yields:
            Values, or :class:`StreamItem` where the broker wants them acknowledged.
        """
        raise NotImplementedError(f"{cls.__name__} has a shared_stream_key() and no stream")

    @classmethod
    def filter_shared_stream(
        cls, stream: AsyncIterator[Any], kwargs: dict[str, Any]
    ) -> AsyncIterator[TriggerEvent]:
        """Make events of the values that are this trigger's: an async generator.

        A value counts as dealt with when the next one is asked for: take one at a time.

        Args:
            stream: the values.
            kwargs: the trigger's arguments.
        """
        raise NotImplementedError(f"{cls.__name__} has a shared_stream_key() and no filter")
