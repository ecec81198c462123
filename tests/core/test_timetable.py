"""S19-S21, H12, H14, H15: which runs a schedule makes, and which interval a manual run covers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.model import SerializedTimetable
from roost.dag.timetable import (
    PRESETS,
    DagRunInfo,
    Interval,
    infer_manual_interval,
    next_run,
    parse_schedule,
)
from roost.exceptions import CronError
from roost.support.clock import SECOND, from_us, to_us

HOUR = 3600 * SECOND
DAY = 24 * HOUR


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def interval_of(info: DagRunInfo | None) -> tuple[str, str] | None:
    if info is None:
        return None
    assert info.logical_date == info.interval_start
    assert info.run_after == info.interval_end
    return f"{from_us(info.interval_start):%FT%H:%M}", f"{from_us(info.interval_end):%FT%H:%M}"


def ask(
    schedule: str | timedelta | None,
    *,
    last: str | None = None,
    start: str | None = None,
    end: str | None = None,
    catchup: bool = False,
    now: str,
    zone: str = "UTC",
) -> tuple[str, str] | None:
    last_us, start_us, end_us = (None if text is None else us(text) for text in (last, start, end))
    table = parse_schedule(schedule, zone)
    return interval_of(next_run(table, last_us, start_us, end_us, catchup, us(now)))


def test_catchup_begins_at_the_start_date_s21() -> None:
    assert ask("@daily", start="2026-01-01", catchup=True, now="2026-03-01T12:00") == (
        "2026-01-01T00:00",
        "2026-01-02T00:00",
    )


def test_a_start_date_between_firings_is_rounded_up() -> None:
    assert ask("0 3 * * *", start="2026-01-01T04:00", catchup=True, now="2026-01-01T05:00") == (
        "2026-01-02T03:00",
        "2026-01-03T03:00",
    )


def test_without_catchup_only_the_newest_missed_interval_h12() -> None:
    assert ask("@daily", start="2026-01-01", now="2026-03-01T12:00") == (
        "2026-02-28T00:00",
        "2026-03-01T00:00",
    )
    assert ask("@daily", start="2026-01-01", last="2026-01-05", now="2026-03-01T00:00") == (
        "2026-02-28T00:00",
        "2026-03-01T00:00",
    )


def test_without_catchup_and_nothing_missed_the_next_is_in_the_future() -> None:
    assert ask("@daily", start="2026-01-01", last="2026-03-01", now="2026-03-01T12:00") == (
        "2026-03-01T00:00",
        "2026-03-02T00:00",
    )


def test_a_start_date_in_the_future_waits_for_its_first_interval() -> None:
    for catchup in (True, False):
        assert ask("@daily", start="2026-06-01", now="2026-03-01", catchup=catchup) == (
            "2026-06-01T00:00",
            "2026-06-02T00:00",
        )


def test_without_a_start_date_runs_begin_with_the_newest_complete_interval() -> None:
    for catchup in (True, False):
        assert ask("@hourly", now="2026-03-01T12:30", catchup=catchup) == (
            "2026-03-01T11:00",
            "2026-03-01T12:00",
        )


def test_no_logical_date_is_later_than_the_end_date() -> None:
    last = {"start": "2026-01-01", "end": "2026-01-03", "catchup": True, "now": "2026-02-01"}
    assert ask("@daily", last="2026-01-03", **last) == ("2026-01-03T00:00", "2026-01-04T00:00")  # type: ignore[arg-type]
    assert ask("@daily", last="2026-01-04", **last) is None  # type: ignore[arg-type]


def test_a_changed_cron_never_uses_a_logical_date_twice() -> None:
    assert ask("@daily", last="2026-01-05T13:00", catchup=True, now="2026-01-05T13:30") == (
        "2026-01-06T00:00",
        "2026-01-07T00:00",
    )


def test_a_cron_is_read_in_its_zone_and_follows_it_through_dst() -> None:
    berlin = {"zone": "Europe/Berlin", "catchup": True, "now": "2026-04-01"}
    assert ask("0 3 * * *", last="2026-03-28T02:00", **berlin) == (  # type: ignore[arg-type]
        "2026-03-28T02:00",
        "2026-03-29T01:00",
    )


def test_once_runs_once_with_an_interval_of_no_length() -> None:
    start = "2026-01-01T00:00"
    assert ask("@once", start=start, now="2026-03-01") == (start, start)
    assert ask("@once", now="2026-03-01") == ("2026-03-01T00:00", "2026-03-01T00:00")
    assert ask("@once", start=start, last=start, now="2026-03-01") is None
    assert ask("@once", start=start, end="2025-12-31", now="2026-03-01") is None


def test_no_schedule_makes_no_runs() -> None:
    assert ask(None, start="2026-01-01", catchup=True, now="2026-03-01") is None


def test_continuous_intervals_touch_and_are_never_empty() -> None:
    table = parse_schedule("@continuous")
    start, now = us("2026-01-01"), us("2026-01-02")
    first = next_run(table, None, start, None, False, now)
    assert first == DagRunInfo(start, now, now, start)
    second = next_run(table, now, start, None, False, now)
    assert second == DagRunInfo(now, now + 1, now + 1, now)
    unbounded = next_run(table, None, None, None, False, now)
    assert unbounded is not None
    assert unbounded.interval_start < unbounded.run_after <= now


def test_a_timedelta_steps_from_the_start_date() -> None:
    step = timedelta(minutes=90)
    assert ask(step, start="2026-01-01T00:10", catchup=True, now="2026-01-05") == (
        "2026-01-01T00:10",
        "2026-01-01T01:40",
    )
    assert ask(step, start="2026-01-01T00:10", now="2026-01-01T05:00") == (
        "2026-01-01T03:10",
        "2026-01-01T04:40",
    )
    assert ask(timedelta(hours=1), now="2026-01-01T05:20") == (
        "2026-01-01T04:00",
        "2026-01-01T05:00",
    )


def test_a_manual_run_covers_the_newest_complete_interval() -> None:
    at = us("2026-01-25T01:00")
    assert infer_manual_interval(parse_schedule("@daily"), at) == (
        us("2026-01-24"),
        us("2026-01-25"),
    )
    on_time = us("2026-01-25")
    assert infer_manual_interval(parse_schedule("@daily"), on_time).end == on_time
    assert infer_manual_interval(parse_schedule(timedelta(hours=2)), at) == (at - 2 * HOUR, at)
    for schedule in (None, "@once", "@continuous"):
        assert infer_manual_interval(parse_schedule(schedule), at) == Interval(at, at)


SCHEDULES = st.one_of(
    st.sampled_from([*PRESETS, "*/17 * * * *", "30 2 * * *", "0 1,2 * * 0", "5 4 29 2 *"]),
    st.integers(SECOND, 40 * DAY).map(lambda step: timedelta(microseconds=step)),
)
ZONES = st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])
MOMENTS = st.integers(us("2005-01-01"), us("2036-01-01"))


@given(SCHEDULES, ZONES, MOMENTS)
def test_catchup_makes_every_interval_once_ascending_without_a_gap_invariant_s12(
    schedule: str | timedelta, zone: str, start: int
) -> None:
    table, last = parse_schedule(schedule, zone), None
    for _ in range(12):
        info = next_run(table, last, start, None, True, start)
        assert info is not None
        assert info.interval_start < info.interval_end
        assert info.interval_start >= start if last is None else info.interval_start == last
        last = info.interval_end


@given(SCHEDULES, ZONES, MOMENTS, st.integers(0, 500 * DAY))
def test_without_catchup_the_run_is_the_last_that_catchup_would_make_by_now_invariant_s12(
    schedule: str | timedelta, zone: str, start: int, elapsed: int
) -> None:
    table, now = parse_schedule(schedule, zone), start + elapsed
    newest = next_run(table, None, start, None, False, now)
    assert newest is not None
    following = next_run(table, newest.interval_end, start, None, False, now)
    assert following is not None
    assert following.interval_start == newest.interval_end
    assert following.run_after > now, "one run only"
    if newest.run_after > now:  # nothing was missed: it is the first of all
        assert newest == next_run(table, None, start, None, True, now)
    else:  # it continues the chain that catchup makes
        manual = infer_manual_interval(table, now)
        assert table.kind == "delta" or manual == (newest.interval_start, newest.interval_end)


@given(SCHEDULES, MOMENTS, st.integers(-400 * DAY, 400 * DAY), st.booleans())
def test_a_stepped_clock_repeats_no_interval(
    schedule: str | timedelta, now: int, step: int, catchup: bool
) -> None:
    table = parse_schedule(schedule)
    info = next_run(table, None, None, None, catchup, now)
    assert info is not None
    after_step = next_run(table, info.interval_end, None, None, catchup, now + step)
    assert after_step is not None
    assert after_step.interval_start >= info.interval_end


def test_parse_keeps_what_listings_show() -> None:
    assert parse_schedule(" @Daily ") == SerializedTimetable(
        kind="cron", cron="0 0 * * *", summary="@daily"
    )
    assert parse_schedule("0  3 * * MON", "Europe/Berlin") == SerializedTimetable(
        kind="cron", cron="0 3 * * mon", timezone="Europe/Berlin", summary="0  3 * * MON"
    )
    assert parse_schedule(timedelta(hours=1)).summary == "1:00:00"
    assert parse_schedule(None).summary == "None"
    table = SerializedTimetable(kind="once")
    assert parse_schedule(table) is table


HOSTILE = [
    "",
    " ",
    "* * * *",
    "* * * * * * *",
    "0 0 30 2 *",
    "0 0 31 4,6,9,11 *",
    "0 0 30 2 * 0",
    "60 * * * *",
    "*/0 * * * *",
    "-1 * * * *",
    "0 0 * * 8",
    "H * * * *",
    "R * * * *",
    "R(0-5) * * * *",
    "0 0 L-3 * *",
    "1#1 * * * *",
    "٣ * * * *",
    "0 0 * * *\0",
    "0\n0 * * *; drop",
    "x" * 40_000,
    "*," * 20_000 + "* * * * *",
    "9" * 200 + " * * * *",
    ",".join(["0-59/1"] * 20) + " " + ",".join(["0-23"] * 20) + " 30 2 *",
    ",".join(["0-59/1"] * 30) + " * * * * 60",
    "@fortnightly",
    "@" + "x" * 40_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_or_impossible_cron_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_schedule(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert any(word in message for word in ("write", "choose", "use one of")), message


@given(st.text("0123456789*/,-?#lwhr @\x00jan", max_size=60) | st.text(max_size=40))
def test_any_text_parses_or_is_a_cron_error(text: str) -> None:
    try:
        table = parse_schedule(text)
    except CronError:
        return
    assert next_run(table, None, 0, None, True, 0) is not None


@pytest.mark.parametrize(
    "value", [timedelta(0), timedelta(seconds=-5), timedelta(milliseconds=1), 5]
)
def test_other_schedules_are_refused(value: timedelta) -> None:
    with pytest.raises(CronError, match="give a"):
        parse_schedule(value)


def test_an_unknown_zone_is_refused() -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", "", "Europe"):
        with pytest.raises(CronError, match="use an IANA name"):
            parse_schedule("@daily", zone)
