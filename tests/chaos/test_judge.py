"""The judge itself: it must see each broken promise in evidence that holds one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Key
from tests.chaos.judge import leases, verdict
from tests.chaos.nemesis import Blow

KEY: Key = ("hops", "hops-1", "timer", -1)


def log(event: str, came_from: str, **fields: Any) -> Any:
    row = {"event": event, "from_state": came_from, "to_state": "", "try_number": 1}
    row |= {"dispatch_id": None, "trigger_id": None, "reason": None, "at": 0, "actor": "a"}
    return SimpleNamespace(**row | fields)


def audit(what: str, **fields: Any) -> Any:
    row = {"what": what, "trigger_id": 7, "lane": "poll", "epoch": 1, "job_id": 3, "fired": 0}
    kind = "default" if what in ("made", "changed", "gone") else None  # the queue's place
    row |= {"kind": kind, "owner_ok": 1, "at": 0, "dispatch_id": 1}
    return SimpleNamespace(**row | fields)


HOST = audit("joined", trigger_id=None, kind="a:boot", lane="triggerer", epoch=1234)


def line(what: str, dispatch: int, at: int, **fields: Any) -> dict[str, Any]:
    return {
        "w": what,
        "ti": list(KEY),
        "d": dispatch,
        "try": 1,
        "hop": 0,
        "t": at,
        "at": at,
        **fields,
    }


def history() -> list[Any]:
    """One wait and its end, as the log tells it."""
    return [
        log("schedule", "none"),
        log("start", "queued", dispatch_id=1),
        log("defer", "running", dispatch_id=1, trigger_id=7),
        log("resume", "deferred", dispatch_id=1, trigger_id=7),
        log("start", "queued", dispatch_id=2, trigger_id=7),
        log("succeed", "running", dispatch_id=2, trigger_id=7),
    ]


def evidence(rows: list[Any] | None = None) -> Evidence:
    """The same with witness and audit; nothing is wrong with it."""
    found = Evidence()
    found.add_log(KEY, history() if rows is None else rows)
    found.states = {KEY: "success"}
    found.runs = {KEY[:2]: "success"}
    found.audit = [
        audit("made", job_id=None, epoch=0),
        audit("changed"),
        audit("event", fired=1, kind="fired"),
        audit("gone", fired=1),
        HOST,
    ]
    found.witness = [
        line("begin", 1, 10),
        line("end", 1, 20, how="defer", step="poll:1"),
        line("begin", 2, 30, hop=1, came=1),
        line("end", 2, 40, hop=1, how="return"),
    ]
    return found


def rules(found: Evidence) -> set[str]:
    return {said.partition(":")[0] for said in verdict(found)}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert verdict(evidence()) == []


@pytest.mark.parametrize(
    ("at", "fields", "rule"),
    [
        (2, {"came": None}, "S3"),  # begins afresh instead of going on
        (2, {"came": 99}, "S3"),  # goes on after a wait of long ago
        (2, {"stale": True}, "S3"),
        (2, {"early": True}, "N1"),
        (2, {"t": 15}, "S1"),  # while the body before it lives
        (2, {"try": 2}, "S2"),
        (2, {"d": 5}, "S1"),  # a dispatch that nobody started
        (3, {"how": "defer"}, "S11"),  # its end is not what the log says
        (3, {"hop": 0}, "L5"),  # it left out a step
    ],
)
def test_a_body_that_should_not_be_is_seen(at: int, fields: dict[str, Any], rule: str) -> None:
    found = evidence()
    found.witness[at] |= fields
    assert rule in rules(found)


def test_two_bodies_of_one_dispatch_are_seen() -> None:
    """invariant S1."""
    found = evidence()
    found.witness.insert(3, line("begin", 2, 35, hop=1, came=1))
    assert "S1" in rules(found)


@pytest.mark.parametrize("number", [0, 2])
def test_a_trigger_that_is_left_never_or_twice_is_seen(number: int) -> None:
    """invariant S3."""
    rows = history()
    rows[3:4] = rows[3:4] * number
    assert "S3" in rules(evidence(rows))


def test_two_starts_after_one_event_are_seen_but_for_a_loss() -> None:
    """invariant S3: a dispatch that was lost with its worker may begin anew, no other."""
    rows = history()
    again = log("start", "queued", dispatch_id=3, trigger_id=7)
    for ended, broken in (("lose", False), ("retry", True)):
        middle = log(ended, "running", dispatch_id=2, trigger_id=7)
        last = log("succeed", "running", dispatch_id=3, trigger_id=7)
        found = evidence([*rows[:5], middle, again, last])
        found.witness[3:] = [
            line("begin", 3, 50, hop=1, came=1),
            line("end", 3, 60, hop=1, how="return"),
        ]
        assert ("S3" in rules(found)) is broken


@pytest.mark.parametrize(
    ("at", "fields", "rule"),
    [
        (2, {"owner_ok": 0}, "S15"),  # its triggerer had no lease
        (2, {"epoch": 0}, "S15"),  # of a claim that is no more
        (2, {"kind": "failed"}, "S3"),  # taken as what it is not
        (1, {"epoch": 0}, "epoch"),  # a claim without a new epoch
        (3, {"epoch": 0}, "epoch"),  # an epoch that falls
    ],
)
def test_an_event_or_a_claim_that_should_not_be_is_seen(
    at: int, fields: dict[str, Any], rule: str
) -> None:
    found = evidence()
    vars(found.audit[at]).update(fields)
    assert rule in rules(found)


def test_a_second_event_is_seen_and_so_is_a_move_without_one() -> None:
    """invariant S3."""
    found = evidence()
    found.audit.insert(3, audit("event", fired=1, kind="fired"))
    assert "S3" in rules(found)
    found = evidence()
    del found.audit[2]
    assert "S3" in rules(found)


@pytest.mark.parametrize("state", ["failed", "deferred"])
def test_a_task_that_ends_otherwise_or_not_at_all_is_seen(state: str) -> None:
    found = evidence()
    found.states[KEY] = state
    assert "L5" in rules(found)


@pytest.mark.parametrize(
    ("owner_ok", "doomed_at", "stopped", "broken"),
    [
        (1, None, False, True),
        (0, None, False, True),
        (0, None, True, False),
        (1, 5.0, False, False),
    ],
)
def test_a_living_daemon_that_is_declared_dead_is_seen(
    owner_ok: int, doomed_at: float | None, stopped: bool, broken: bool
) -> None:
    """invariant S15: who was killed, or stood still beyond its lease, is another thing."""
    found = Evidence()
    joined = audit("joined", epoch=1234, lane="triggerer")  # the epoch's place holds the pid
    left = audit("left", epoch=1234, lane="triggerer", owner_ok=owner_ok, at=10_000_000)
    found.audit = [joined, left]
    blows = [Blow(1.0, "stop", "triggerer-a", 1234, 20.0)] if stopped else []
    doomed = {} if doomed_at is None else {1234: doomed_at}
    assert bool(list(leases(found, blows, doomed))) is broken
