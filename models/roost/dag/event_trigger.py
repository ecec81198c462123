"""Triggers that go on after an event: the watchers of assets run them (D13)."""

from __future__ import annotations

from roost.dag.trigger import BaseTrigger

__all__ = ["BaseEventTrigger"]


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
