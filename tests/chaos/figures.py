"""Numbers of a trial, for people: how much happened, and how fast others took over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.judge_waits import TIMED_OUT
from tests.chaos.nemesis import Blow

__all__ = ["figures"]

_TAKEOVER_S = 15.0


def figures(found: Evidence, blows: Sequence[Blow], logs: str) -> dict[str, Any]:
    """Counts over the whole trial, and seconds where something took time."""
    ended = Counter(entry.ended for entry in found.entries.values())
    left = Counter(row.event for rows in found.left.values() for row in rows)
    events = [row for row in found.audit if row.what == "event"]
    edits = Counter(row.event for _, row in found.edits)
    fires = Counter(line["trigger"] for line in found.witness if line["w"] == "fire")
    return {
        "task_instances": len(found.states),
        "dispatches": len(found.entries),
        "lost_dispatches": ended["lose"],
        "deferred": ended["defer"],
        "left": dict(left),
        "resumed": left["resume"],
        "events": dict(Counter(f"{row.lane} {row.kind}" for row in events)),
        "edits": dict(edits),
        "edits_wished": sum(row.reason == "as a user wished" for _, row in found.edits),
        "events_sent_by_users": sum(line["w"] == "sent" for line in found.witness),
        "kills_asked": sum(row.what == "killed" for row in found.audit),
        "kills_called": sum(line["w"] == "on_kill" for line in found.witness),
        "timed_out": sum(
            (row.reason or "").startswith(TIMED_OUT) for rows in found.left.values() for row in rows
        ),
        "events_sent": sum(line["w"] == "send" for line in found.witness),
        "things_seen": len(found.sightings),
        "stream_items": sum(line["w"] == "fed" for line in found.witness),
        "stream_acks": sum(line["w"] == "ack" for line in found.witness),
        "stream_nacks": sum(line["w"] == "nack" for line in found.witness),
        "claims_after_the_first": sum(row.epoch > 1 for row in events if row.lane == "poll"),
        "fired_twice": sum(count > 1 for count in fires.values()),
        "events_refused": logs.count("came too late"),
        "dispatches_gone_on_with_twice": sum(len(d) > 1 for d in found.resumed.values()),
        "takeover_s": takeovers(found, blows),
    }


def takeovers(found: Evidence, blows: Sequence[Blow]) -> list[dict[str, Any]]:
    """For each killed triggerer that held triggers: when another had the last of them.

    Only where neither the database nor a peer was broken in the time that this may take.
    """
    host = {row.job_id: row.kind for row in found.audit if row.what == "joined"}
    pids = {row.job_id: row.epoch for row in found.audit if row.what == "joined"}
    rows: dict[int, list[Any]] = defaultdict(list)
    for row in found.audit:
        if row.what in ("made", "changed") and row.lane == "poll":
            rows[row.trigger_id].append(row)
    told = []
    for blow in blows:
        if blow.kind not in ("kill", "host-lost") or not blow.target.startswith("triggerer"):
            continue
        if any(one is not blow and _disturbs(one, blow.at) for one in blows):
            continue
        at = int(blow.at * 1e6)
        took, away = [], 0
        for mine in rows.values():
            before = [row for row in mine if row.at <= at]
            if not before or before[-1].fired or pids.get(before[-1].job_id) != blow.pid:
                continue
            after = [r for r in mine if r.at > at and r.job_id not in (None, before[-1].job_id)]
            if after:
                took.append((after[0].at - at) / 1e6)
                away += host[after[0].job_id] != host[before[-1].job_id]
        if took:
            told.append(
                {
                    "kind": blow.kind,
                    "at": blow.at,
                    "triggers": len(took),
                    "to_the_other_host": away,
                    "s": round(max(took), 2),
                }
            )
    return told


def _disturbs(one: Blow, at: float) -> bool:
    """Whether it may have kept others from taking over what was left at that moment."""
    ours = one.target.startswith("triggerer") and not one.kind.startswith("runner-")
    if not (ours or one.kind.startswith("db-")):
        return False
    return one.at < at + _TAKEOVER_S and one.at + one.seconds > at - 1
