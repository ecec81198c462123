"""Assets: what tasks make, and what DAGs wait for instead of a moment (H16)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from roost.dag import runtime
from roost.dag.model import AssetCondition
from roost.dag.watcher import AssetWatcher, watchers_of
from roost.exceptions import DagError
from roost.support import typedjson
from roost.support.clock import from_us
from roost.support.task_requests import AssetEvent, AssetEventsGet

__all__ = [
    "Asset",
    "AssetAll",
    "AssetAny",
    "AssetEventRecord",
    "AssetExpression",
    "AssetOrTimeSchedule",
    "OutletEvents",
    "TriggeringEvents",
    "assets_of",
    "expression_of",
]

_MOST_CHARS = 250


class AssetExpression:
    """An asset, or several joined by ``&`` (all of them) and ``|`` (any of them)."""

    def __and__(self, other: AssetExpression) -> AssetExpression:
        return AssetAll(self, other)

    def __or__(self, other: AssetExpression) -> AssetExpression:
        return AssetAny(self, other)

    def condition(self) -> AssetCondition:
        """What the scheduler decides on."""
        raise NotImplementedError

    def assets(self) -> list[Asset]:
        """Every asset in it."""
        raise NotImplementedError


class Asset(AssetExpression):
    """Something that tasks make anew and DAGs read: a table, a file, a model.

    A task names it in ``outlets``; each of its successes is an event of the asset. A DAG names it
    in ``schedule``; a run starts when there are events of all that it waits for.

    Args:
        uri: its identity, any text of at most 250 characters, e.g. ``s3://bucket/orders``.
        name: the same, for those who have no URI.
        extra: what is known of it anyway; kept with each event of it.
        watchers: what looks for events of it outside, while a DAG waits for it (D13).

    Raises:
        DagError: it has no identity, or one that cannot be stored; a watcher is none.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        name: str | None = None,
        extra: Mapping[str, Any] | None = None,
        watchers: AssetWatcher | Iterable[AssetWatcher] | None = None,
    ) -> None:
        identity = uri or name
        if not isinstance(identity, str) or not identity.strip() or "\0" in identity:
            raise DagError(f"an Asset needs a uri or a name, not {identity!r}")
        if len(identity) > _MOST_CHARS:
            raise DagError(f"Asset {identity[:40]!r}…: at most {_MOST_CHARS} characters")
        self.uri = identity
        self.name = name or identity
        self.extra = dict(extra or {})
        self.watchers = watchers_of(identity, watchers)

    def condition(self) -> AssetCondition:
        """Itself."""
        return AssetCondition("asset", self.uri)

    def assets(self) -> list[Asset]:
        """Itself."""
        return [self]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asset) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"Asset({self.uri!r})"


class _Joined(AssetExpression):
    op = ""

    def __init__(self, *parts: AssetExpression) -> None:
        for part in parts:
            if not isinstance(part, AssetExpression):
                raise DagError(f"an asset expression is made of Assets, not of {part!r}")
        self.parts = parts

    def condition(self) -> AssetCondition:
        """The parts, those that are joined in the same way taken together."""
        parts: list[AssetCondition] = []
        for made in (part.condition() for part in self.parts):
            parts += made.parts if made.op == self.op else [made]
        return AssetCondition(self.op, parts=parts)  # type: ignore[arg-type]  # all or any

    def assets(self) -> list[Asset]:
        """Those of all parts."""
        return [asset for part in self.parts for asset in part.assets()]


class AssetAll(_Joined):
    """Events of all of these."""

    op = "all"


class AssetAny(_Joined):
    """An event of any of these."""

    op = "any"


class AssetOrTimeSchedule:
    """Runs on a schedule, and whenever the assets have events as well.

    Args:
        timetable: what ``DAG(schedule=…)`` takes for moments.
        assets: an asset, an expression, or a list that means all of them.
    """

    def __init__(self, timetable: Any, assets: AssetExpression | Iterable[Asset]) -> None:
        self.timetable = timetable
        expression = expression_of(assets)
        if expression is None:
            raise DagError(f"AssetOrTimeSchedule: assets must be Assets, not {assets!r}")
        self.expression = expression


def expression_of(schedule: object) -> AssetExpression | None:
    """The assets that ``schedule`` means, None where it is about moments.

    Raises:
        DagError: a list of something else, or of nothing.
    """
    if isinstance(schedule, AssetOrTimeSchedule):
        return schedule.expression
    if isinstance(schedule, AssetExpression):
        return schedule
    if not isinstance(schedule, list | tuple | set):
        return None
    found = assets_of(schedule, "schedule")
    if not found:
        raise DagError("schedule is an empty list; name the Assets to wait for, or None")
    return found[0] if len(found) == 1 else AssetAll(*found)


def assets_of(value: object, what: str) -> list[Asset]:
    """One asset or several as a list.

    Raises:
        DagError: something else is among them; ``what`` says where.
    """
    several = [value] if isinstance(value, Asset) else value
    if several is None:
        return []
    if not isinstance(several, Iterable) or isinstance(several, str | Mapping):
        raise DagError(f"{what} must be an Asset or a list of Assets, not {value!r}")
    found = list(several)
    for one in found:
        if not isinstance(one, Asset):
            raise DagError(f"{what} must hold Assets, not {one!r}; write Asset({one!r})")
    return found


class AssetEventRecord(NamedTuple):
    """One event of an asset, as a task sees it.

    Attributes:
        uri: of the asset.
        timestamp: when it was stored, in UTC.
        source_dag_id: whose task made it; None: somebody by hand. So are the next three.
        extra: what its maker kept with it.
    """

    uri: str
    timestamp: datetime
    source_dag_id: str | None
    source_run_id: str | None
    source_task_id: str | None
    source_map_index: int
    extra: dict[str, Any]

    @classmethod
    def of(cls, event: AssetEvent) -> AssetEventRecord:
        """From the worker's answer."""
        return cls(
            event.uri,
            from_us(event.timestamp),
            event.dag_id,
            event.run_id,
            event.task_id,
            event.map_index,
            _dict(event.extra),
        )


def _dict(extra: bytes) -> dict[str, Any]:
    value = typedjson.decode(extra)
    return value if isinstance(value, dict) else {}


class _OutletEvent:
    """What a task tells about the event of one of its outlets."""

    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}

    def add(self, extra: Mapping[str, Any]) -> None:
        """More to keep with the event."""
        self.extra.update(extra)


class OutletEvents(Mapping[Asset, _OutletEvent]):
    """``outlet_events`` of the context: what to keep with each outlet's event, by asset."""

    def __init__(self, outlets: Iterable[Asset]) -> None:
        self._events = {asset: _OutletEvent() for asset in outlets}

    def __getitem__(self, asset: Asset) -> _OutletEvent:
        return self._events[asset]

    def __iter__(self) -> Iterator[Asset]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def extras(self) -> dict[str, bytes]:
        """Typed JSON of what there is to keep, by uri.

        Raises:
            ValueNotStorable: a value is not typed JSON.
        """
        return {
            asset.uri: typedjson.encode(
                {**asset.extra, **event.extra}, name=f"extra of asset {asset.uri!r}"
            )
            for asset, event in self._events.items()
            if asset.extra or event.extra
        }


class TriggeringEvents(Mapping[str, list[AssetEventRecord]]):
    """``triggering_asset_events`` of the context: the events for which the run was made, by uri.

    Asked for when it is first looked at; empty in a run that no event started.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[AssetEventRecord]] | None = None

    def _events(self) -> dict[str, list[AssetEventRecord]]:
        if self._found is None:
            self._found = {}
            for event in runtime.ask(AssetEventsGet(), "triggering_asset_events").events:
                self._found.setdefault(event.uri, []).append(AssetEventRecord.of(event))
        return self._found

    def __getitem__(self, key: str | Asset) -> list[AssetEventRecord]:
        return self._events()[key.uri if isinstance(key, Asset) else key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._events())

    def __len__(self) -> int:
        return len(self._events())
