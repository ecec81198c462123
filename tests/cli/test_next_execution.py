"""H14, H15: `dags next-execution` with every kind of timetable: it prints when runs start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roost.dag.model import ParsedFile, SerializedTimetable, Upcoming
from roost.dag.timetable import parse_schedule
from roost.dag.timetables import (
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    EventsTimetable,
    MultipleCronTriggerTimetable,
    NullTimetable,
    OnceTimetable,
)
from roost.models.engine import open_engine, transact
from roost.scheduler.parsing.store import store_file
from roost.support.clock import SECOND, to_us
from tests.cli.seed import Seed, chain

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
EXPECTED: dict[str, tuple[Any, list[str]]] = {
    "cron": (CronDataIntervalTimetable("0 3 * * *"), ["01-02T03", "01-03T03"]),
    "cron trigger": (CronTriggerTimetable("0 3 * * *"), ["01-01T03", "01-02T03"]),
    "with interval": (CronTriggerTimetable("0 3 * * *", interval=DAY), ["01-01T03", "01-02T03"]),
    "two crons": (MultipleCronTriggerTimetable("0 3 * * *", "0 5 * * *"), ["01-01T03", "01-01T05"]),
    "delta": (DeltaDataIntervalTimetable(DAY), ["01-02T00", "01-03T00"]),
    "delta trigger": (DeltaTriggerTimetable(DAY), ["01-01T00", "01-02T00"]),
    "events": (EventsTimetable([START + DAY, START + 3 * DAY]), ["01-02T00", "01-04T00", "None"]),
    "once": (OnceTimetable(), ["01-01T00", "None"]),
    "none": (NullTimetable(), ["None"]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_h14_h15_next_execution_of_each_timetable(seed: Seed, name: str) -> None:
    timetable, wanted = EXPECTED[name]
    table = parse_schedule(timetable)
    seed.dags(chain("a", "x", timetable=table, start_date=to_us(START), catchup=True))
    result = seed.cli("dags", "next-execution", "a", "-n", str(len(wanted)))
    told = [line if line == "None" else line[5:13] for line in result.stdout.splitlines()]
    assert told == wanted


def test_h14_next_execution_of_a_timetable_of_ones_own(seed: Seed) -> None:
    hour = 3600 * SECOND
    first = to_us(START)
    runs = [(first + i * hour, first + i * hour + 60, first + (i + 2) * hour) for i in range(2)]
    dag = chain("a", "x", timetable=SerializedTimetable(kind="custom"), catchup=True)
    parsed = ParsedFile("h", "", [], [dag], [], upcoming={"a": Upcoming(runs, catchup=True)})
    engine = open_engine(seed.url)
    error = transact(
        engine, lambda tx: store_file(tx, "a.py", parsed, stamp="", took_us=1, paused=False)
    )
    engine.dispose()
    assert error is None
    assert seed.cli("dags", "next-execution", "a", "-n", "3").stdout.splitlines() == [
        "2026-01-01T02:00:00+00:00",
        "2026-01-01T03:00:00+00:00",
        "None",
    ]
