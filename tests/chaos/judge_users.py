"""The verdict on what users did: edits of what waits, and the ``on_kill()`` that follows (D10).

A wait that a user ended is gone on with by nobody; a cleared task begins a new try, with waits of
its own, to which all other rules apply.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.chaos.evidence import BY_USER, Evidence, Key

__all__ = ["edits", "kills", "marked"]

_EVENTS = {
    "clear": "clear",
    "success": "mark_success",
    "failed": "mark_failed",
    "skipped": "mark_skipped",
}
_WISHED = "as a user wished"
_KILLABLE = {"Beacon", "Seat"}


def edits(found: Evidence) -> Iterator[str]:
    """D10: what a user was told was done is in the log once, and nothing that nobody asked for."""
    meant: dict[str, Any] = {one["actor"]: one for one in found.witness if one["w"] == "edit"}
    done = {one["actor"]: one for one in found.witness if one["w"] == "edited"}
    made: dict[str, list[Any]] = defaultdict(list)
    granted: Counter[Key] = Counter()
    wishes = Counter(tuple(meant[actor]["ti"]) for actor in meant if _may_wish(done.get(actor)))
    for key, row in found.edits:
        if row.reason == _WISHED:
            granted[key] += 1
            continue
        made[row.actor].append(row)
        one = meant.get(row.actor)
        if one is None or tuple(one["ti"]) != key or _EVENTS[one["how"]] != row.event:
            yield f"D10: {key} was moved by {row.actor}, who meant {one}: {row}"
    for actor, one in done.items():
        if len(made[actor]) != one["moved"]:
            yield f"D10: {actor} was told of {one['moved']} moves, the log has {made[actor]}"
    yield from (f"D10: {a} edited {len(rows)} times" for a, rows in made.items() if len(rows) > 1)
    for key, count in granted.items():
        if count > wishes[key]:
            yield f"D10: {key} was granted {count} wishes of {wishes[key]}"
    for actor, one in done.items():
        key = tuple(meant[actor]["ti"])
        if one["wished"] and not granted[key]:
            yield f"D10: {actor} wished for {key}, which was never granted"


def _may_wish(done: Any) -> bool:
    return done is None or bool(done["wished"])


def marked(found: Evidence) -> dict[Key, str]:
    """The state that a user gave last, of those that have not been cleared since."""
    last = {key: row.to_state for key, row in found.edits}
    return {key: state for key, state in last.items() if state != "none"}


def kills(found: Evidence) -> Iterator[str]:
    """D10: ``on_kill()`` is called of what a user ended, at least once, and of nothing else."""
    called = {one["trigger"] for one in found.witness if one["w"] == "on_kill"}
    asked = {row.trigger_id: row for row in found.audit if row.what == "killed"}
    gone = {row.trigger_id: row for row in found.audit if row.what == "gone"}
    for trigger, row in asked.items():
        if row.kind in _KILLABLE and trigger not in called:
            yield f"D10: on_kill() of trigger {trigger} was never called: {row}"
        ended = {left.event for left in found.left.get(trigger, [])}
        maker = found.entries.get(row.dispatch_id)
        wished = trigger not in found.left and maker is not None and maker.ended in BY_USER
        if not (ended & BY_USER or wished):
            yield f"D10: trigger {trigger} is to be killed, it was left by {ended}: {row}"
    for trigger in called - set(asked):
        yield f"D10: on_kill() of trigger {trigger} was called, whose wait no user ended"
    for trigger, rows in found.left.items():
        row = gone.get(trigger)
        if row is None or row.lane != "poll" or row.fired or trigger in asked:
            continue
        began = row.epoch > 0 or found.maker(trigger) != found.started
        if began and any(one.event in BY_USER for one in rows):
            yield f"D10: a user ended trigger {trigger}, it is not to be killed: {row}"
