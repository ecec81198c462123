"""Watchers: what looks for events of an asset that no task of ours makes (D13)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import msgspec

from roost.dag.event_trigger import BaseEventTrigger
from roost.dag.model import SerializedWatcher
from roost.dag.trigger import source_of
from roost.exceptions import DagError, ValueNotStorable
from roost.support import typedjson

__all__ = ["AssetWatcher", "identity_of", "serialize_watcher", "watchers_of"]

_MOST_CHARS = 250


class AssetWatcher:
    """Has a trigger run for as long as a DAG waits for the asset that it is given to.

    Each event of the trigger is one of the asset, its payload the event's ``extra``. Watchers with
    triggers of the same class and the same arguments share one.

    Args:
        name: what listings call it.
        trigger: a :class:`~roost.triggers.BaseEventTrigger`.
        queue: only triggerers that take triggers of this queue run it (D18).

    Raises:
        DagError: an argument is wrong.
    """

    def __init__(self, name: str, trigger: BaseEventTrigger, *, queue: str = "default") -> None:
        for what, given in (("name", name), ("queue", queue)):
            if not isinstance(given, str) or not given.strip() or "\0" in given:
                raise DagError(f"an AssetWatcher needs a {what}, not {given!r}")
            if len(given) > _MOST_CHARS:
                raise DagError(f"AssetWatcher {what} {given[:40]!r}…: at most 250 characters")
        if not isinstance(trigger, BaseEventTrigger):
            raise DagError(
                f"AssetWatcher {name!r} needs a BaseEventTrigger, not {_kind(trigger)}: "
                "only such a trigger goes on after an event"
            )
        self.name = name
        self.trigger = trigger
        self.queue = queue

    def __repr__(self) -> str:
        return f"AssetWatcher({self.name!r}, {self.trigger!r})"


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def watchers_of(asset: str, given: object) -> list[AssetWatcher]:
    """The ``watchers`` of an asset as a list.

    Raises:
        DagError: something else is among them, or two have one name.
    """
    several = [given] if isinstance(given, AssetWatcher) else given
    if several is None:
        return []
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise DagError(f"watchers of Asset {asset!r} must be a list of AssetWatchers")
    found = list(several)
    for one in found:
        if not isinstance(one, AssetWatcher):
            raise DagError(f"watchers of Asset {asset!r} must hold AssetWatchers, not {one!r}")
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise DagError(f"Asset {asset!r} has two watchers of the name {name!r}")
    return found


def serialize_watcher(uri: str, watcher: AssetWatcher) -> SerializedWatcher:
    """What is stored of a watcher of the asset ``uri``.

    Raises:
        DagError: ``serialize()`` of its trigger raises, or gives something else than it should.
    """
    what = f"watcher {watcher.name!r} of asset {uri!r}"
    trigger = watcher.trigger
    try:
        classpath, kwargs = trigger.serialize()
    except Exception as error:
        raise DagError(f"{what}: serialize() failed: {type(error).__name__}: {error}") from error
    if not isinstance(classpath, str) or not isinstance(kwargs, dict):
        raise DagError(f"{what}: serialize() must return (class path, dict of arguments)")
    try:
        plain = msgspec.json.decode(typedjson.encode(kwargs, name=f"arguments of {what}"))
    except ValueNotStorable as error:
        raise DagError(str(error)) from None
    return SerializedWatcher(
        uri=uri,
        name=watcher.name,
        classpath=classpath,
        source=source_of(type(trigger)),
        kwargs=plain,
        queue=watcher.queue,
    )


def identity_of(watcher: SerializedWatcher, code_hash: str, own: Collection[str]) -> str:
    """The hash by which equal watchers share one trigger.

    Args:
        watcher: the watcher.
        code_hash: the version of its DAG file.
        own: trigger classes whose code depends on that version.
    """
    code = code_hash if watcher.source in own else ""
    told = [watcher.classpath, watcher.source, watcher.kwargs, watcher.queue, code]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()
