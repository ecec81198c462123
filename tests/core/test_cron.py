"""H14: at which instants a cron fires, against an oracle that walks every minute of the clock.

The oracle shares nothing with the implementation but zoneinfo's offsets: it has a cron parser of
its own and looks at each minute around a change of the clock, in a sample of zones and changes.
test_cron_zones.py visits every change of every zone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.cron import Cron, check_cron, cron_of
from roost.exceptions import CronError
from roost.support.clock import from_us, to_us

MINUTE = 60_000_000
HOUR = 60 * MINUTE
CHECKED: set[tuple[int, int, int]] = set()
SAMPLE = [
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",  # gaps at midnight
    "America/Caracas",  # half an hour, once each way
    "America/Nuuk",
    "Africa/Casablanca",  # two changes a month apart
    "Africa/Cairo",
    "Antarctica/Troll",  # two hours
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # half an hour, twice a year
    "Europe/Berlin",
    "Europe/London",
    "Pacific/Apia",  # a whole day skipped
    "Pacific/Chatham",
]
CRONS = [
    "0 0 * * *",
    "59 23 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "0 12 * * *",
    "0 2,3 * * *",
    "*/10 0 * * *",
    "*/10 1 * * *",
    "*/10 2 * * *",
    "20,50 0-4 * * *",
    "0 */2 * * *",
    "0 */6 * * *",
    "0 1-23/2 * * *",
    "30 2 * * 0",
    "0 0 1 * *",
    "30 0 * 3,10,11 *",
    "0 * * * *",
    "30 * * * *",
    "45 0-23 * * *",
    "15 * * * 0",
    "*/15 * * * *",
    "*/25 * * * *",
    "7-37/10 */1 * * *",
]


@cache
def values(field: str, low: int, high: int) -> frozenset[int]:
    """The values of a cron field, by a parser that knows nothing of croniter's."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(found)


def matches(cron: str, minute_of_epoch: int) -> bool:
    """Whether a wall time, in minutes since 1970-01-01 00:00 of the wall clock, matches."""
    minute, hour, day, month, weekday = cron.split()
    days, rest = divmod(minute_of_epoch, 1440)
    if rest % 60 not in values(minute, 0, 59) or rest // 60 not in values(hour, 0, 23):
        return False
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)
    return (
        date.day in values(day, 1, 31)
        and date.month in values(month, 1, 12)
        and (days + 4) % 7 in values(weekday, 0, 6)
    )


def offset_minutes(zone: ZoneInfo, moment: int) -> int:
    offset = from_us(moment).astimezone(zone).utcoffset()
    assert offset is not None
    minutes, rest = divmod(offset, timedelta(minutes=1))
    assert not rest, "since 2000 every offset is in whole minutes"
    return minutes


def clock_changes(name: str, step_hours: int) -> Iterator[int]:
    """The instants at which the offset of a zone changes, 2000-2037."""
    zone = ZoneInfo(name)
    at, end = (to_us(datetime(year, 1, 1, tzinfo=UTC)) for year in (2000, 2038))
    before = offset_minutes(zone, at)
    while at < end:
        at += step_hours * HOUR
        if (after := offset_minutes(zone, at)) != before:
            low, high = at - step_hours * HOUR, at
            while high - low > MINUTE:
                middle = (low + high) // 2 // MINUTE * MINUTE
                if offset_minutes(zone, middle) == before:
                    low = middle
                else:
                    high = middle
            yield high
            before = after


def expected(cron: str, zone: ZoneInfo, change: int, low: int, high: int) -> list[int]:
    """Every firing in [low, high), found by looking at every minute."""
    before, after = offset_minutes(zone, low), offset_minutes(zone, high)
    wall = {}
    for moment in range(high - MINUTE, low - MINUTE, -MINUTE):
        offset = before if moment < change else after
        wall[moment] = moment // MINUTE + offset
    if values(cron.split()[1], 0, 23) == frozenset(range(24)):
        return sorted(moment for moment, label in wall.items() if matches(cron, label))
    first = {label: moment for moment, label in wall.items()}  # the earliest is written last
    labels = range(min(first), max(first) + 1)
    return sorted({first.get(label, change) for label in labels if matches(cron, label)})


def check_around(name: str, change: int) -> None:
    zone = ZoneInfo(name)
    for text in CRONS:
        hours = 4 if text.startswith("*/") and " * " in text[:6] else 27
        low, high = change - hours * HOUR, change + hours * HOUR
        want = expected(text, zone, change, low, high)
        cron, told = Cron(text, name), f"{text!r} in {name} around {from_us(change)}"
        ahead: list[int] = []
        at = cron.at_or_after(low)
        while at is not None and at < high:
            ahead.append(at)
            at = cron.after(at)
        assert list(map(from_us, ahead)) == list(map(from_us, want)), told
        back: list[int] = []
        at = cron.before(high)
        while at is not None and at >= low:
            back.append(at)
            at = cron.before(at)
        # Wall times before the window may share the change with one inside it, never its start.
        assert back[::-1] == want, told
        for moment in (change - 1, change, change + 1, change - HOUR + 1, change + HOUR // 2 + 1):
            later = [fires for fires in want if fires > moment]
            earlier = [fires for fires in want if fires < moment]
            assert not later or cron.after(moment) == later[0], told
            assert not earlier or cron.before(moment) == earlier[-1], told


def changes_to_check(name: str) -> list[int]:
    found = list(clock_changes(name, step_hours=24))
    return random.Random(f"H14 {name}").sample(found, min(2, len(found)))  # noqa: S311


@pytest.mark.parametrize("name", SAMPLE)
def test_h14_firings_around_changes_of_the_clock(name: str) -> None:
    zone = ZoneInfo(name)
    for change in changes_to_check(name):
        shape = (change, offset_minutes(zone, change - 1), offset_minutes(zone, change))
        if shape not in CHECKED:  # many zones are one under several names
            check_around(name, change)
            CHECKED.add(shape)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "fires"),
    [
        # Twice 01:30 on the wall: the first, EDT. The next is a day later.
        ("30 1 * * *", "America/New_York", "2024-11-03T00:00-04:00", "2024-11-03T01:30-04:00"),
        ("30 1 * * *", "America/New_York", "2024-11-03T01:30-04:00", "2024-11-04T01:30-05:00"),
        # No 02:30: the first instant after the gap.
        ("30 2 * * *", "America/New_York", "2024-03-10T00:00-05:00", "2024-03-10T03:00-04:00"),
        ("30 2 * * *", "America/New_York", "2024-03-10T03:00-04:00", "2024-03-11T02:30-04:00"),
        # 02:00 and 03:00 fall together.
        ("0 2,3 * * *", "America/New_York", "2024-03-10T03:00-04:00", "2024-03-11T02:00-04:00"),
        # Every hour: also in the repeated one.
        ("30 * * * *", "America/New_York", "2024-11-03T01:30-04:00", "2024-11-03T01:30-05:00"),
        ("0 * * * *", "America/New_York", "2024-03-10T01:00-05:00", "2024-03-10T03:00-04:00"),
        # Samoa had no 30 December 2011.
        ("0 0 * * *", "Pacific/Apia", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
        ("0 0 * * *", "Pacific/Apia", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
        # Half an hour on Lord Howe.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00+11:00", "2026-04-05T01:45+11:00"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00+10:30", "2026-10-04T02:30+11:00"),
        # Seconds are the sixth field.
        ("30 2 * * * 15", "UTC", "2026-01-01T02:30:14+00:00", "2026-01-01T02:30:15+00:00"),
        ("* * * * * */20", "UTC", "2026-01-01T00:00:20.000001+00:00", "2026-01-01T00:00:40+00:00"),
        # A yearly cron crosses many changes.
        ("0 * 1 1 *", "Africa/Casablanca", "2026-01-01T23:30+01:00", "2027-01-01T00:00+01:00"),
        ("0 0 29 2 *", "UTC", "2096-02-29T00:00+00:00", "2104-02-29T00:00+00:00"),
    ],
)
def test_worked_examples(cron: str, zone: str, after: str, fires: str) -> None:
    start, want = (to_us(datetime.fromisoformat(text)) for text in (after, fires))
    found = cron_of(check_cron(cron), zone).after(start)
    assert found is not None
    assert from_us(found) == from_us(want)


DENSE = st.sampled_from(["*", "*/5", "0", "30", "7,8,50", "10-20"])
EXPRESSIONS = st.builds(
    "{} {} {} {} {}".format,
    DENSE,
    st.sampled_from(["*", "*/4", "0", "23", "1-5"]),
    st.sampled_from(["*", "1", "31", "*/10", "l", "15w"]),
    st.sampled_from(["*", "2", "1,7", "*/3"]),
    st.sampled_from(["*", "0", "mon-fri", "5#2", "l3"]),
)


MOMENTS = st.integers(
    to_us(datetime(2000, 1, 1, tzinfo=UTC)), to_us(datetime(2037, 1, 1, tzinfo=UTC))
)


@given(EXPRESSIONS, MOMENTS | MOMENTS.map(lambda at: at // HOUR * HOUR))
def test_in_utc_firings_are_croniters_and_inverse_of_each_other(text: str, at: int) -> None:
    try:
        cron = cron_of(check_cron(text), "UTC")
    except CronError:
        return  # such as the 31st of February
    after, before = cron.after(at), cron.before(at)
    assert after is not None
    assert before is not None
    assert before < at < after
    whole = from_us(at).replace(microsecond=0)
    assert from_us(after) == croniter(text, whole).get_next(datetime)
    assert cron.before(after) == cron.at_or_before(at)
    assert cron.after(before) == cron.at_or_after(at)


def test_the_sample_covers_every_kind_of_change() -> None:
    sizes = set()
    for name in SAMPLE:
        zone = ZoneInfo(name)
        for change in changes_to_check(name):
            sizes.add(offset_minutes(zone, change) - offset_minutes(zone, change - 1))
    assert {60, -60, 30, -30} <= sizes, sizes
