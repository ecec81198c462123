"""H14 at every change of the clock of every IANA zone from 2000 to 2037.

Zones of the same data are visited once, and changes at one moment between the same offsets once;
of those that are the same on the wall, one with all crons and the others with two.
Around each the crons are those that the change may disturb: at a wall time that is skipped or
repeated, every hour, every quarter, every other hour, on that day of the month and of the week.

The oracle is arithmetic on wall times, in minutes: a wall time before the change lies at one
offset, after it at the other. test_cron.py checks cron and oracle against one that walks the clock.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from roost.dag.cron import Cron
from roost.dag.timetable import next_run, parse_schedule
from roost.support.clock import from_us, to_us
from tests.core.test_cron import CRONS, SAMPLE, changes_to_check, expected, offset_minutes, values

MINUTE = 60_000_000
DAYS = [datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(38 * 365 + 10)]
PARTS = 8


class Change(NamedTuple):
    """The clock of a zone at one moment, in minutes since the epoch, and its offsets around it."""

    at: int
    before: int
    after: int


def data_of(name: str) -> bytes:
    """What zoneinfo reads for a zone."""
    for folder in zoneinfo.TZPATH:
        path = Path(folder, name)
        if path.is_file():
            return path.read_bytes()
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


@cache
def changes() -> dict[Change, str]:
    """Every change, with one of the zones that have it."""
    zones: dict[bytes, str] = {}
    for name in sorted(zoneinfo.available_timezones()):
        zones.setdefault(data_of(name), name)
    found: dict[Change, str] = {}
    for name in zones.values():
        for change in changes_of(ZoneInfo(name)):
            found.setdefault(change, name)
    return found


def changes_of(zone: ZoneInfo) -> Iterator[Change]:
    offsets = [day.astimezone(zone).utcoffset() for day in DAYS]
    for day, before, after in zip(DAYS, offsets, offsets[1:], strict=False):
        if before == after:
            continue
        low = to_us(day) // MINUTE
        high = low + 1440
        was = offset_minutes(zone, low * MINUTE)
        while high - low > 1:
            middle = (low + high) // 2
            if offset_minutes(zone, middle * MINUTE) == was:
                low = middle
            else:
                high = middle
        yield Change(high, was, offset_minutes(zone, high * MINUTE))


def fires(cron: str, change: Change, low: int, high: int) -> list[int]:
    """Every firing in [low, high), in minutes since the epoch; H14 as it is written."""
    minute, hour, day, month, weekday = cron.split()
    elapsed = values(hour, 0, 23) == frozenset(range(24))
    found: set[int] = set()
    first = low + change.before
    last = high + change.after
    for number in range(first // 1440, last // 1440 + 1):
        date = DAYS[0] + timedelta(days=number - 10_957)
        if (
            date.day not in values(day, 1, 31)
            or date.month not in values(month, 1, 12)
            or (number + 4) % 7 not in values(weekday, 0, 6)
        ):
            continue
        for hours in values(hour, 0, 23):
            for minutes in values(minute, 0, 59):
                label = number * 1440 + hours * 60 + minutes
                earlier, later = label - change.before, label - change.after
                if earlier < change.at:
                    found.add(earlier)
                if later >= change.at and (elapsed or earlier >= change.at):
                    found.add(later)
                if not elapsed and earlier >= change.at > later:
                    found.add(change.at)  # skipped
    return sorted(at for at in found if low <= at < high)


def disturbed(change: Change) -> Iterator[tuple[str, int]]:
    """Crons that the change may disturb, and how many minutes around it to look."""
    size = change.after - change.before
    wall = change.at + change.before
    inside = wall + size // 2  # of what is skipped, or repeated
    yield f"{inside % 60} {inside // 60 % 24} * * *", 26 * 60
    yield "0 * * * *", abs(size) + 100
    edge = min(wall, wall + size)
    yield f"{edge % 60} {edge // 60 % 24} * * *", 26 * 60
    date = DAYS[0] + timedelta(minutes=inside - 10_957 * 1440)
    daily = f"{inside % 60} {inside // 60 % 24}"
    yield f"{daily} {date.day} * *", 26 * 60
    yield f"{daily} * * {(inside // 1440 + 4) % 7}", 26 * 60
    yield "0 0 * * *", 26 * 60
    yield "0 */2 * * *", abs(size) + 150
    yield "*/15 * * * *", abs(size) + 35


def check(change: Change, name: str, crons: int | None = None) -> None:
    for text, around in islice(disturbed(change), crons):
        low, high = change.at - around, change.at + around
        want = [at * MINUTE for at in fires(text, change, low, high)]
        cron, told = Cron(text, name), f"{text!r} in {name} around {from_us(change.at * MINUTE)}"
        ahead = [cron.at_or_after(low * MINUTE)]
        while ahead[-1] is not None and ahead[-1] < high * MINUTE:
            ahead.append(cron.after(ahead[-1]))
        assert ahead[:-1] == want, told
        back = [cron.before(high * MINUTE)]
        while back[-1] is not None and back[-1] >= low * MINUTE:
            back.append(cron.before(back[-1]))
        assert back[-2::-1] == want, told


@pytest.mark.timeout(300)  # the first one of a process reads every zone
@pytest.mark.parametrize("part", range(PARTS))
def test_h14_no_gap_and_no_duplicate_at_any_change_of_any_zone(part: int) -> None:
    assert len(changes()) > 3_000
    alike: dict[tuple[int, int], list[tuple[Change, str]]] = {}
    for change, name in sorted(changes().items()):
        wall, size = change.at + change.before, change.after - change.before
        alike.setdefault((wall, size), []).append((change, name))
    for group in list(alike.values())[part::PARTS]:
        for number, (change, name) in enumerate(group):
            # The same on the wall, at another offset: the same crons say the same again.
            check(change, name, None if number == 0 else 2)


def test_h14_intervals_tile_time_over_a_change() -> None:
    for change, name in sorted(changes().items())[::40]:
        text, around = next(disturbed(change))
        table = parse_schedule(text, name)
        start, now = (change.at - around) * MINUTE, (change.at + around) * MINUTE
        first = next_run(table, None, start, None, True, now)
        assert first is not None
        end = first.interval_end
        for _ in range(3):
            info = next_run(table, end, start, None, True, now)
            assert info is not None
            assert info.interval_start == end < info.interval_end
            end = info.interval_end


@pytest.mark.parametrize("name", SAMPLE)
def test_the_oracle_agrees_with_one_that_walks_the_clock(name: str) -> None:
    zone = ZoneInfo(name)
    for moment in changes_to_check(name):
        at = moment // MINUTE
        offsets = offset_minutes(zone, moment - MINUTE), offset_minutes(zone, moment)
        low, high = at - 1_620, at + 1_620
        for text in CRONS:
            want = expected(text, zone, moment, low * MINUTE, high * MINUTE)
            assert [m * MINUTE for m in fires(text, Change(at, *offsets), low, high)] == want, text
