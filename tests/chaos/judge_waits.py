"""The verdict on who waits where, for what, and for how long: queues, keys, moments, starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.chaos import scripts
from tests.chaos.evidence import BY_USER, Evidence

__all__ = ["TIMED_OUT", "keys", "queues", "starts", "timeouts"]

TIMED_OUT = "the trigger timed out"


def queues(found: Evidence) -> Iterator[str]:
    """D18: a triggerer claims triggers of its queues only. (That none is left is L5.)"""
    hosts = {row.job_id: row.kind for row in found.audit if row.what == "joined"}
    for row in found.audit:
        if row.what != "changed" or row.lane != "poll" or row.job_id is None:
            continue
        host = str(hosts[row.job_id]).partition(":")[0]
        if row.kind not in scripts.QUEUES[host]:
            yield f"D18: a triggerer of {scripts.QUEUES[host]} claimed from {row.kind}: {row}"


def keys(found: Evidence) -> Iterator[str]:
    """External events: one that was sent is had by who waits for its key, whoever came first.

    That nobody has another's, or one twice, is S3.
    """
    sent = {one["key"] for one in found.witness if one["w"] == "send"}
    for trigger, rows in found.left.items():
        end = deferral(found, trigger)
        if end is None or str(end["step"]).partition(":")[0] not in ("event", "await"):
            continue
        key = end["key"]
        if not rows and key in sent:
            yield f"key: an event was sent to {key}, trigger {trigger} waits for it: {end}"
        if any(row.event == "resume" for row in rows) and key not in sent:
            yield f"key: nothing was sent to {key}, trigger {trigger} had it: {rows}"


def timeouts(found: Evidence) -> Iterator[str]:
    """D6: no wait is timed out before its time, nor one whose event is there."""
    events = {row.trigger_id for row in found.audit if row.what == "event"}
    for trigger, rows in found.left.items():
        for row in rows:
            if row.event in BY_USER or not (row.reason or "").startswith(TIMED_OUT):
                continue
            if trigger in events:
                yield f"D6: trigger {trigger} was timed out, its event was there: {row}"
            end = deferral(found, trigger)
            limit = None if end is None else scripts.timeout_of(end["step"])
            if end is not None and limit is None:
                yield f"D6: {end} was timed out: {row}"
            elif end is not None and limit is not None and row.at < end["at"] + limit * 1e6:
                yield f"D6: {end} was timed out before its {limit:g} s were over: {row}"


def starts(found: Evidence) -> Iterator[str]:
    """D12: a task that starts in its trigger has no dispatch before it."""
    for dispatch, entry in found.entries.items():
        if entry.ti[2] in scripts.BEGUN and entry.came is None:
            yield f"D12: dispatch {dispatch} of {entry} came before the trigger that starts it"


def deferral(found: Evidence, trigger: int) -> dict[str, Any] | None:
    """How the body ended that deferred with a trigger; None where none did, or none is known."""
    maker = found.maker(trigger)
    bodies = [] if maker is None else found.bodies_of(maker)
    return bodies[-1].end if bodies else None
