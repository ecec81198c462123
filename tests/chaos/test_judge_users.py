"""The judge of users' edits, kills and watchers must see each broken promise, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Sighting
from tests.chaos.judge import verdict
from tests.chaos.test_judge import HOST, KEY, audit, line, log, rules

Break = Callable[[Evidence], object]


def cleared() -> list[Any]:
    """A wait that a user ended, and the try that followed."""
    user = {"reason": "cleared by a user", "actor": "user 1"}
    return [
        log("schedule", "none"),
        log("start", "queued", dispatch_id=1),
        log("defer", "running", to_state="deferred", dispatch_id=1, trigger_id=7),
        log("clear", "deferred", to_state="none", dispatch_id=1, **user),
        log("schedule", "none", try_number=2),
        log("start", "queued", dispatch_id=2, try_number=2),
        log("succeed", "running", dispatch_id=2, try_number=2),
    ]


def edited(rows: list[Any] | None = None) -> Evidence:
    """The same with witness and audit; nothing is wrong with it."""
    found = Evidence()
    found.add_log(KEY, cleared() if rows is None else rows)
    found.states = {KEY: "success"}
    found.runs = {KEY[:2]: "success"}
    found.audit = [
        audit("made", job_id=None, epoch=0),
        audit("changed"),
        audit("gone"),
        audit("killed", kind="Beacon", lane=None, dispatch_id=1),
        HOST,
    ]
    found.witness = [
        line("begin", 1, 10),
        line("end", 1, 20, how="defer", step="poll:1"),
        {"w": "edit", "actor": "user 1", "ti": list(KEY), "how": "clear", "trigger": 7},
        {"w": "edited", "actor": "user 1", "moved": 1, "wished": 0},
        {"w": "on_kill", "nonce": 1, "trigger": 7},
        line("begin", 2, 30, **{"try": 2}),
        line("end", 2, 40, hop=1, how="return", **{"try": 2}),
    ]
    return found


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert verdict(edited()) == []


def test_a_wait_that_a_user_ended_is_gone_on_with_by_nobody() -> None:
    """D10, S3: neither in the log nor by what the task is given."""
    found = edited()
    found.witness[5] |= {"came": 1, "hop": 1}
    assert "S3" in rules(found)
    rows = cleared()
    rows.insert(4, log("resume", "deferred", dispatch_id=1, trigger_id=7))
    assert "S3" in rules(edited(rows))


def resumed_and_dropped() -> list[Any]:
    """A user clears what is about to go on."""
    rows = cleared()
    user = {"reason": "cleared by a user", "actor": "user 1", "to_state": "none"}
    rows[3:4] = [log("resume", "deferred", dispatch_id=1, trigger_id=7, to_state="scheduled")]
    rows.insert(4, log("clear", "scheduled", dispatch_id=1, **user))
    return rows


def test_who_is_edited_before_he_goes_on_need_not() -> None:
    """S3: but who was not has to."""
    found = edited(resumed_and_dropped())
    found.audit = [
        *found.audit[:2],
        audit("event", fired=1, kind="fired"),
        audit("gone", fired=1),
        HOST,
    ]
    del found.witness[4]
    assert verdict(found) == []
    found.dropped.clear()
    assert "S3" in rules(found)


@pytest.mark.parametrize("what", ["no intent", "another task", "another edit", "not made", "twice"])
def test_an_edit_that_is_lost_doubled_or_made_up_is_seen(what: str) -> None:
    """D10: what the log has is what a user meant and was told."""
    found = edited()
    match what:
        case "no intent":
            found.witness[2]["actor"] = found.witness[3]["actor"] = "user 2"
            found.witness[3]["moved"] = 0
        case "another task":
            found.witness[2]["ti"] = ["hops", "hops-1", "two", -1]
        case "another edit":
            found.witness[2]["how"] = "failed"
        case "not made":
            found.edits.clear()
        case "twice":
            found.witness[3]["moved"] = 0
    assert "D10" in rules(found)


def test_an_edit_whose_answer_was_lost_may_be_made_or_not() -> None:
    found = edited()
    del found.witness[3]
    assert verdict(found) == []


def wished(found: Evidence, moves: int) -> Evidence:
    found.witness[3] |= {"moved": 0, "wished": 1}
    (key, row) = found.edits.pop()
    row.reason = "as a user wished"
    found.edits += [(key, row)] * moves
    return found


@pytest.mark.parametrize(("moves", "broken"), [(0, True), (1, False), (2, True)])
def test_a_wish_is_granted_once(moves: int, broken: bool) -> None:
    """D10: an edit of what runs is made when that has ended."""
    assert ("D10" in rules(wished(edited(), moves))) is broken


def test_a_mark_stays_unless_it_is_cleared() -> None:
    found = edited()
    found.edits[0][1].to_state, found.edits[0][1].event = "failed", "mark_failed"
    found.witness[2]["how"] = "failed"
    assert "L5" in rules(found)  # it is success
    found.states[KEY] = "failed"
    assert "L5" not in rules(found)


@pytest.mark.parametrize(
    "broken",
    [
        lambda found: found.witness.pop(4),  # nobody called it
        lambda found: found.audit.pop(3),  # nobody is to call it
        lambda found: found.witness.append({"w": "on_kill", "nonce": 5, "trigger": 8}),
        lambda found: found.left[7][0].__dict__.update(event="resume"),  # it had its event
    ],
)
def test_a_kill_that_is_missing_or_should_not_be_is_seen(broken: Break) -> None:
    """D10: on_kill() of what a user ended; never for a hand-over, or after an event."""
    found = edited()
    broken(found)
    assert "D10" in rules(found)


def test_what_no_runner_has_made_yet_is_not_killed() -> None:
    """D10: nor what has fired, nor a row that no runner holds."""
    for fields in ({"fired": 1}, {"lane": "timer"}):
        found = edited()
        found.audit = [*found.audit[:2], audit("gone", **fields), HOST]
        del found.witness[4]
        assert not [said for said in verdict(found) if said.startswith("D10")]


@pytest.mark.parametrize(
    ("total", "state", "broken"),
    [("8", "", False), ("6", "", True), ("6", "running", True), ("6", "success", False),
     ("4", "success", True)],
)  # fmt: skip
def test_what_a_mapped_task_left_is_read_whole_unless_a_user_cleared_it(
    total: str, state: str, broken: bool
) -> None:
    """S16."""
    found = Evidence()
    found.totals = {("mapped", "mapped-1"): total}
    if state:
        found.edits = [(("mapped", "mapped-1", "each", 0), log("clear", state, to_state="none"))]
    assert any(said.startswith("S16") for said in verdict(found)) is broken


def caught() -> Evidence:
    """Two things, two runs."""
    found = Evidence()
    found.sightings = [Sighting("1", ["r1"]), Sighting("2", ["r2"])]
    found.witness = [
        {"w": "thing", "thing": "1"},
        {"w": "thing", "thing": "2"},
        {"w": "caught", "run": "r1", "things": ["1"]},
        {"w": "caught", "run": "r2", "things": ["2"]},
    ]
    return found


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (lambda found: found.sightings.pop(), "D13"),  # lost
        (lambda found: found.sightings.append(Sighting("1", ["r1"])), "D13"),  # doubled
        (lambda found: found.sightings.append(Sighting("9", ["r1"])), "D13"),  # made up
        (lambda found: found.sightings[0].runs.clear(), "H16"),  # no run was made for it
        (lambda found: found.sightings[0].runs.append("r2"), "H16"),  # two were
        (lambda found: found.witness[3].update(things=["1"]), "H16"),  # the task saw another
    ],
)
def test_a_sighting_that_is_lost_doubled_or_made_up_is_seen(broken: Break, rule: str) -> None:
    """D13, H16."""
    found = caught()
    assert verdict(found) == []
    broken(found)
    assert rule in rules(found)
