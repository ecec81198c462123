"""The verdict on watchers that share a stream: what each is given, and when it is acknowledged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.chaos.evidence import Evidence

__all__ = ["streams"]

_Item = tuple[str, int]  # a stream that was open once, and the number of one of its items


def streams(found: Evidence) -> Iterator[str]:
    """D14: all are given every item while they are there, and none is acknowledged too soon.

    That no wave is lost or stored twice is judged where that of all watchers is.
    """
    yield from _answers(found)
    yield from _gaps(found)


def _answers(found: Evidence) -> Iterator[str]:
    fed: dict[_Item, set[int]] = defaultdict(set)
    dealt: dict[_Item, set[int]] = defaultdict(set)
    last: dict[str, int] = defaultdict(int)
    acknowledged: set[_Item] = set()
    for one in _lines(found, "fed", "dealt", "ack", "nack"):
        item = one["stream"], one["number"]
        if one["w"] == "fed":
            fed[item].add(one["by"])
            if item in acknowledged:
                yield f"D14: an item was given to somebody after it was acknowledged: {one}"
        elif one["w"] == "dealt":
            dealt[item].add(one["by"])
        else:
            if one["number"] <= last[one["stream"]]:
                yield f"D14: an item was answered for after {last[one['stream']]}: {one}"
            last[one["stream"]] = one["number"]
            if one["w"] == "ack":
                acknowledged.add(item)
                if left := fed[item] - dealt[item]:
                    yield f"D14: an item was acknowledged, {sorted(left)} were at it yet: {one}"


def _gaps(found: Evidence) -> Iterator[str]:
    """What a filter asks for is one item after the other; begun anew, it may have missed some."""
    last: dict[str, Any] = {}
    for one in _lines(found, "fed"):
        before = last.get(one["life"])
        last[one["life"]] = one
        if before is not None and before["stream"] != one["stream"]:
            yield f"D14: a filter was given items of two streams: {before}, {one}"
        elif before is not None and one["number"] != before["number"] + 1:
            yield f"D14: a filter was not given what came between: {before}, {one}"


def _lines(found: Evidence, *kinds: str) -> list[Any]:
    return sorted((one for one in found.witness if one["w"] in kinds), key=lambda one: one["t"])
