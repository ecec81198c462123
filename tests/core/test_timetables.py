"""H14, H15: timetables as objects: what each makes of last run, bounds, catchup and now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag import DAG, foresee
from roost.dag.cron import cron_of
from roost.dag.model import SerializedDag, SerializedTimetable
from roost.dag.moments import AnyOf, Given, Grid, Moments
from roost.dag.serialize import serialize_dag
from roost.dag.timetable import Interval, infer_manual_interval, next_run, parse_schedule
from roost.dag.timetables import (
    ContinuousTimetable,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DagRunInfo,
    DataInterval,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    EventsTimetable,
    MultipleCronTriggerTimetable,
    NullTimetable,
    OnceTimetable,
    TimeRestriction,
    Timetable,
)
from roost.exceptions import CronError, DagError
from roost.support.clock import SECOND, from_us, to_us

HOUR = timedelta(hours=1)
FIVE: Any = 5


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def us(text: str | None) -> int | None:
    return None if text is None else to_us(at(text))


def table(schedule: Timetable, zone: str = "UTC") -> SerializedTimetable:
    made = parse_schedule(schedule, zone)
    # As it comes out of the database.
    return msgspec.json.decode(msgspec.json.encode(made), type=SerializedTimetable)


def ask(
    schedule: Timetable,
    *,
    now: str,
    last: str | None = None,
    start: str | None = None,
    end: str | None = None,
    catchup: bool = True,
    zone: str = "UTC",
) -> tuple[str, str, str] | None:
    """Interval and run_after of the next run."""
    made = table(schedule, zone)
    info = next_run(made, us(last), us(start), us(end), catchup, to_us(at(now)))
    if info is None:
        return None
    assert info.logical_date == info.interval_start
    moments = (info.interval_start, info.interval_end, info.run_after)
    first, second, third = (f"{from_us(one):%m-%dT%H:%M}" for one in moments)
    return first, second, third


def same(text: str) -> tuple[str, str, str]:
    return text, text, text


def test_h14_a_cron_trigger_runs_at_its_moment_and_covers_nothing_h15() -> None:
    daily = CronTriggerTimetable("0 3 * * *")
    assert ask(daily, start="2026-01-01", now="2026-01-05") == same("01-01T03:00")
    assert ask(daily, last="2026-01-01T03:00", now="2026-01-05") == same("01-02T03:00")
    assert ask(daily, start="2026-01-02T03:00", now="2026-01-05") == same("01-02T03:00")
    assert ask(daily, start="2026-02-01", now="2026-01-05") == same("02-01T03:00")


def test_h14_without_catchup_a_trigger_runs_for_the_newest_moment_only_h12() -> None:
    daily = CronTriggerTimetable("0 3 * * *")
    some = {"now": "2026-01-05T12:00", "catchup": False}
    assert ask(daily, start="2026-01-01", **some) == same("01-05T03:00")  # type: ignore[arg-type]
    assert ask(daily, **some) == same("01-05T03:00")  # type: ignore[arg-type]
    assert ask(daily, last="2026-01-05T03:00", **some) == same("01-06T03:00")  # type: ignore[arg-type]


def test_h14_a_trigger_may_cover_the_time_before_it() -> None:
    daily = CronTriggerTimetable("0 3 * * *", interval=timedelta(days=1))
    found = ask(daily, last="2026-01-01T03:00", now="2026-01-05")
    assert found == ("01-01T03:00", "01-02T03:00", "01-02T03:00")
    made = table(daily)
    assert infer_manual_interval(made, 100 * 86_400 * SECOND) == Interval(
        99 * 86_400 * SECOND, 100 * 86_400 * SECOND
    )


def test_h14_several_crons_make_one_run_at_a_common_moment() -> None:
    both = MultipleCronTriggerTimetable("0 0 * * *", "0 */12 * * *", timezone="UTC")
    assert table(both).summary == "0 0 * * *, 0 */12 * * *"
    last, found = "2026-01-01T00:00", []
    for _ in range(3):
        info = ask(both, last=last, now="2026-02-01")
        assert info is not None
        found.append(info[2])
        last = f"2026-{info[2]}"
    assert found == ["01-01T12:00", "01-02T00:00", "01-02T12:00"]


def test_h14_a_trigger_has_its_own_zone_or_that_of_the_dag() -> None:
    in_zone = CronTriggerTimetable("0 3 * * *", timezone=ZoneInfo("Europe/Berlin"))
    of_dag = CronTriggerTimetable("0 3 * * *")
    for found in (table(in_zone), table(of_dag, "Europe/Berlin")):
        assert found.timezone == "Europe/Berlin"
    assert ask(in_zone, start="2026-07-01", now="2026-07-05") == same("07-01T01:00")


def test_h14_a_delta_trigger_counts_from_its_start() -> None:
    steps = DeltaTriggerTimetable(timedelta(hours=5))
    assert ask(steps, start="2026-01-01T01:00", now="2026-01-05") == same("01-01T01:00")
    assert ask(steps, last="2026-01-01T01:00", now="2026-01-05") == same("01-01T06:00")
    now = {"now": "2026-01-01T12:30", "catchup": False}
    assert ask(steps, start="2026-01-01T01:00", **now) == same("01-01T11:00")  # type: ignore[arg-type]
    covering = DeltaTriggerTimetable(timedelta(hours=5), interval=HOUR)
    found = ask(covering, last="2026-01-01T01:00", now="2026-01-05")
    assert found == ("01-01T05:00", "01-01T06:00", "01-01T06:00")


def test_h14_events_in_any_order_each_once() -> None:
    dates = EventsTimetable([at("2026-03-01"), at("2026-01-01"), at("2026-02-01")])
    assert ask(dates, now="2026-12-01") == same("01-01T00:00")
    assert ask(dates, last="2026-01-01", now="2026-12-01") == same("02-01T00:00")
    assert ask(dates, start="2026-01-15", now="2026-12-01") == same("02-01T00:00")
    assert ask(dates, now="2026-02-10", catchup=False) == same("02-01T00:00")
    assert ask(dates, last="2026-03-01", now="2026-12-01") is None
    assert ask(dates, last="2026-01-01", end="2026-01-20", now="2026-12-01") is None
    assert table(dates).summary == "3 events"


def test_h14_manual_runs_of_events() -> None:
    dates = [at("2026-01-01"), at("2026-02-01")]
    moment = to_us(at("2026-01-20"))
    free = table(EventsTimetable(dates))
    bound = table(EventsTimetable(dates, restrict_to_events=True))
    assert infer_manual_interval(free, moment) == Interval(moment, moment)
    assert infer_manual_interval(bound, moment) == Interval(*[to_us(dates[0])] * 2)
    assert infer_manual_interval(bound, 0) == Interval(*[to_us(dates[0])] * 2)


def test_h14_objects_that_say_what_a_text_says() -> None:
    for made, schedule in (
        (CronDataIntervalTimetable("@daily"), "@daily"),
        (CronDataIntervalTimetable("0 3 * * *"), "0 3 * * *"),
        (DeltaDataIntervalTimetable(HOUR), HOUR),
        (OnceTimetable(), "@once"),
        (ContinuousTimetable(), "@continuous"),
        (NullTimetable(), None),
    ):
        assert table(made, "Europe/Berlin") == parse_schedule(schedule, "Europe/Berlin")
    in_zone = table(CronDataIntervalTimetable("@daily", timezone="Asia/Tokyo"))
    assert in_zone.timezone == "Asia/Tokyo"


def test_h14_an_object_answers_by_itself_too() -> None:
    daily = CronDataIntervalTimetable("@daily", "UTC")
    found = daily.next_dagrun_info(
        last_automated_data_interval=DataInterval(at("2026-01-01"), at("2026-01-02")),
        restriction=TimeRestriction(None, None, True),
    )
    assert found == DagRunInfo.interval(at("2026-01-02"), at("2026-01-03"))
    assert found is not None
    assert found.logical_date == at("2026-01-02")
    manual = daily.infer_manual_data_interval(run_after=at("2026-01-02T12:00"))
    assert manual == DataInterval(at("2026-01-01"), at("2026-01-02"))


def test_h14_a_subclass_that_decides_for_itself_is_the_users_own() -> None:
    class Mine(CronTriggerTimetable):
        def next_dagrun_info(self, **arguments: Any) -> DagRunInfo | None:
            return super().next_dagrun_info(**arguments)

    class Named(CronTriggerTimetable):
        pass

    assert table(Mine("@daily")).kind == "custom"
    assert table(Named("@daily")).kind == "cron_trigger"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CronTriggerTimetable("61 * * * *"), "not a cron expression"),
        (lambda: CronTriggerTimetable(FIVE), "must be text, not 5"),
        (lambda: CronTriggerTimetable("@daily", timezone="Nowhere/City"), "unknown time zone"),
        (lambda: CronTriggerTimetable("@daily", interval=FIVE), "interval must be a timedelta"),
        (lambda: MultipleCronTriggerTimetable(), "at least one cron"),
        (lambda: MultipleCronTriggerTimetable("@daily", "x"), "has 1 fields"),
        (lambda: CronDataIntervalTimetable("0 0 31 2 *"), "never occurs"),
        (lambda: DeltaTriggerTimetable(timedelta(0)), "at least a second"),
        (lambda: DeltaDataIntervalTimetable(FIVE), "use a cron expression"),
        (lambda: EventsTimetable([]), "at least one date"),
        (lambda: EventsTimetable([datetime(2026, 1, 1)]), "with a time zone"),  # noqa: DTZ001
    ],
)
def test_h14_what_is_wrong_is_said_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(CronError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


class Endless(Timetable):
    """Never comes back."""

    def next_dagrun_info(self, **arguments: Any) -> DagRunInfo | None:
        while True:
            pass


class Slow(Timetable):
    """Never reaches the present."""

    def next_dagrun_info(self, **arguments: Any) -> DagRunInfo | None:
        last = arguments["last_automated_data_interval"]
        start = at("2020-01-01") if last is None else last.end
        return DagRunInfo.interval(start, start + timedelta(microseconds=1))


@pytest.mark.parametrize("kind", [Endless, Slow])
def test_h14_a_timetable_that_takes_too_long_is_cut(
    kind: type[Timetable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foresee, "_LIMIT_S", 0.1)
    dag = SerializedDag("d", table(kind()), [])
    with pytest.raises(DagError, match="to name 50 runs; does next_dagrun_info"):
        foresee.foresee(kind(), dag, None, to_us(at("2026-01-01")))


def test_h14_a_timetable_sees_its_bounds_in_the_zone_of_the_dag() -> None:
    seen: list[TimeRestriction] = []

    class Looks(Timetable):
        def next_dagrun_info(self, **arguments: Any) -> DagRunInfo | None:
            seen.append(arguments["restriction"])
            return None

    zone = ZoneInfo("Europe/Berlin")
    made = DAG("d", schedule=Looks(), start_date=datetime(2026, 1, 1, tzinfo=zone), catchup=True)
    found = foresee.foresee(Looks(), serialize_dag(made), None, 0)
    assert (found.runs, found.ended, found.catchup) == ([], True, True)
    assert seen == [TimeRestriction(datetime(2026, 1, 1, tzinfo=zone), None, True)]
    assert seen[0].earliest is not None
    assert str(seen[0].earliest.tzinfo) == "Europe/Berlin"


SETS: list[Moments] = [
    AnyOf([cron_of("*/7 * * * *", "Europe/Berlin"), cron_of("30 2 * * *", "Europe/Berlin")]),
    Grid(5, 777 * SECOND),
    Given(sorted({i * i * 1_000 * SECOND for i in range(2_000)})),
]
TIMES = st.integers(0, 4_000_000_000).map(lambda s: s * SECOND)


@given(st.sampled_from(SETS), TIMES)
def test_h14_before_and_after_are_inverse(moments: Moments, moment: int) -> None:
    after = moments.after(moment)
    if after is None:
        return
    assert after > moment
    before = moments.before(after)
    assert before is None or before <= moment
    assert moments.before(after + 1) == after
    if before is not None:
        assert moments.after(before) == after


@given(
    st.sampled_from(
        [
            CronTriggerTimetable("*/20 * * * *", timezone="Europe/Berlin"),
            DeltaTriggerTimetable(timedelta(minutes=7)),
            EventsTimetable([from_us(i**3 * 10**9) for i in range(1, 160)]),
        ]
    ),
    TIMES,
    st.booleans(),
    st.lists(st.integers(0, 10**12), max_size=5),
)
def test_h14_runs_advance_whatever_the_time_between(
    schedule: Timetable, start: int, catchup: bool, waits: list[int]
) -> None:
    made, last, now = table(schedule), None, start
    for wait in [0, *waits]:
        now += wait
        info = next_run(made, last, start, None, catchup, now)
        if info is None:
            return
        assert last is None or info.interval_end > last
        assert info.run_after >= start
        last = info.interval_end
