"""The judge of queues, keys, time-outs, ends and starts must see each broken promise, too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Key
from tests.chaos.judge import verdict
from tests.chaos.judge_waits import keys, queues, starts, timeouts
from tests.chaos.test_judge import KEY, audit, evidence, history, line, log, rules


@pytest.mark.parametrize(
    ("queue", "broken"), [("default", False), ("left", False), ("right", True)]
)
def test_a_claim_from_another_queue_is_seen(queue: str, broken: bool) -> None:
    """D18: the triggerer of host a takes two queues."""
    found = evidence()
    found.audit[1].kind = queue
    assert bool(list(queues(found))) is broken
    assert verdict(found) == list(queues(found))


def keyed(step: str = "event:after", *, sent: bool = True) -> Evidence:
    """The wait is for an event from outside."""
    found = evidence()
    found.witness[1] |= {"step": step, "key": "k"}
    if sent:
        found.witness.append({"w": "send", "key": "k"})
    return found


def test_an_event_that_is_lost_or_made_up_is_seen() -> None:
    assert list(keys(keyed())) == []
    assert list(keys(keyed(sent=False)))
    for sent in (True, False):
        found = keyed(sent=sent)
        found.left[7].clear()  # it waits for ever
        assert bool(list(keys(found))) is sent


def late(at: int) -> Evidence:
    """The wait is timed out at a moment, the task tried again; its body ended at 20."""
    rows = history()[:3]
    reason = "the trigger timed out: no event of trigger 7 in time"
    rows.append(log("retry", "deferred", dispatch_id=1, trigger_id=7, reason=reason, at=at))
    found = evidence(rows)
    found.audit = [found.audit[0], found.audit[1], audit("gone"), found.audit[-1]]
    found.witness = [line("begin", 1, 10), line("end", 1, 20, how="defer", step="race:1")]
    return found


def test_who_is_timed_out_in_time_is_well() -> None:
    assert verdict(late(1_000_020)) == []


@pytest.mark.parametrize("what", ["early", "for nothing", "with an event"])
def test_a_time_out_that_should_not_be_is_seen(what: str) -> None:
    """D6."""
    found = late(1_000_019 if what == "early" else 1_000_020)
    if what == "for nothing":
        found.witness[1]["step"] = "poll:1"
    if what == "with an event":
        found.audit.insert(2, audit("event", fired=1, kind="fired"))
    assert list(timeouts(found))
    assert "D6" in rules(found)


@pytest.mark.parametrize(
    ("kind", "event", "broken"),
    [
        ("end_success", "succeed", False),
        ("end_failed", "succeed", True),
        ("end_failed", "retry", False),
        ("end_skipped", "resume", True),
    ],
)
def test_an_end_that_is_taken_for_another_is_seen(kind: str, event: str, broken: bool) -> None:
    """D11."""
    rows = history()[:3]
    rows.append(log(event, "deferred", dispatch_id=1, trigger_id=7))
    found = evidence(rows)
    found.audit[2].kind = kind
    assert ("D11" in rules(found)) is broken


def test_a_worker_that_begins_what_a_trigger_is_to_start_is_seen() -> None:
    """D12."""
    begun: Key = ("begun", "begun-1", "again", -1)
    rows: list[Any] = [
        log("start_deferred", "none", to_state="deferred", trigger_id=7),
        log("resume", "deferred", trigger_id=7),
        log("start", "queued", dispatch_id=2, trigger_id=7),
        log("succeed", "running", dispatch_id=2, trigger_id=7),
    ]
    for gone_on, broken in ((rows, False), (rows[2:], True)):
        found = Evidence()
        found.add_log(begun, gone_on)
        assert bool(list(starts(found))) is broken
    found = Evidence()
    found.add_log(KEY, history())
    assert list(starts(found)) == []
