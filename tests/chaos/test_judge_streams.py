"""The judge of shared streams must see each broken promise, too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Sighting
from tests.chaos.judge_streams import streams
from tests.chaos.judge_tide import tide


def told(what: str, at: int, number: int, by: int = 0, **fields: Any) -> dict[str, Any]:
    """A line of the witness about an item of the one stream that is open."""
    line = {"w": what, "t": at, "stream": "s", "number": number, "wave": f"{number:06}", "by": by}
    return line | {"life": f"life {by}"} | fields


def two_items() -> Evidence:
    """Two watchers, two items; nothing is wrong with it."""
    found = Evidence()
    found.witness = [
        told("fed", 1, 1, 0),
        told("fed", 2, 1, 1),
        told("dealt", 3, 1, 0),
        told("dealt", 4, 1, 1),
        told("ack", 5, 1),
        told("fed", 6, 2, 0),
        told("fed", 7, 2, 1),
        told("dealt", 8, 2, 1),
        told("dealt", 9, 2, 0),
        told("ack", 10, 2),
    ]
    return found


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert list(streams(two_items())) == []


@pytest.mark.parametrize(
    ("at", "fields"),
    [
        (3, {"t": 11}),  # acknowledged before one has dealt with it
        (6, {"t": 11}),  # given to somebody when it is acknowledged
        (4, {"number": 2}),  # answered twice, the other one never
        (4, {"t": 11}),  # in another order than that in which they came
        (5, {"number": 3}),  # one was left out
        (5, {"number": 1}),  # one came twice
        (5, {"stream": "another"}),
    ],
)
def test_an_item_that_is_lost_or_acknowledged_too_soon_is_seen(
    at: int, fields: dict[str, Any]
) -> None:
    """D14."""
    found = two_items()
    found.witness[at] |= fields
    assert list(streams(found))


def test_what_is_given_back_need_not_be_dealt_with() -> None:
    """D14: nor does a filter that is begun anew have what it missed meanwhile."""
    found = two_items()
    del found.witness[8]
    found.witness[8]["w"] = "nack"
    found.witness += [told("fed", 20, 5, 0, life="another"), told("fed", 21, 6, 0, life="another")]
    assert list(streams(found)) == []


def seen(*things: str) -> Evidence:
    """Waves 1 and 2, and what was made of them."""
    found = Evidence()
    found.witness = [{"w": "wave", "wave": "000001"}, {"w": "wave", "wave": "000002"}]
    found.sightings = [Sighting(thing, [thing]) for thing in things]
    return found


def test_a_wave_is_an_event_of_each_who_is_to_see_it() -> None:
    """D14: once, and of nobody else: the last of them looks at every second one."""
    whole = ["000001@0", "000001@1", "000001@2", "000002@0", "000002@1"]
    assert list(tide(seen(*whole))) == []
    for things in (whole[1:], [*whole, whole[0]], [*whole, "000002@2"]):
        said = list(tide(seen(*things)))
        assert any(line.startswith("D14") for line in said), things
