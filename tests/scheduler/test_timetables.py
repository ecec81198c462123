"""H14: timetables of the user's own, from the file that defines them to the runs they make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from roost.dag.model import ParsedFile, SerializedDag, SerializedTimetable, Upcoming
from roost.models.engine import transact
from roost.models.transitions import NewRun, create_run
from roost.scheduler.parsing.running_out import FEWEST, RunningOut
from roost.scheduler.parsing.store import store_file
from roost.support.clock import SECOND, from_us, to_us
from tests.scheduler.hands import DAY, START, World, dag, task
from tests.scheduler.watching import Folder
from tests.support.databases import fetch

HOUR = 3600 * SECOND

FILE = """
from datetime import datetime, timedelta, timezone
from roost.dag import DAG
from roost.dag.timetables import DagRunInfo, DataInterval, Timetable
from roost.operators import EmptyOperator

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)

class Steps(Timetable):
    "Every {hours} hours from the start of 2026."

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        {body}
        start = last_automated_data_interval.end if last_automated_data_interval else (
            restriction.earliest or datetime(2026, 1, 1, tzinfo=timezone.utc))
        return DagRunInfo.interval(start, start + timedelta(hours={hours}))

with DAG("mine", schedule=Steps(), start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), {more}):
    EmptyOperator(task_id="a")
"""


def text(body: str = "pass", hours: int = 6, more: str = "catchup=True") -> str:
    return FILE.format(body=body, hours=hours, more=more)


def upcoming(folder: Folder, dag_id: str = "mine") -> Upcoming:
    (row,) = fetch(folder.url, "SELECT upcoming FROM dag WHERE dag_id = :d", d=dag_id)
    return msgspec.json.decode(row["upcoming"], type=Upcoming)


def next_run_of(folder: Folder) -> Any:
    (row,) = fetch(folder.url, "SELECT next_run_after FROM dag WHERE dag_id = 'mine'")
    return row["next_run_after"]


def a_run(folder: Folder, start: int, end: int) -> None:
    """As if the scheduler had made it."""
    (row,) = fetch(folder.url, "SELECT version_id FROM dag WHERE dag_id = 'mine'")
    run = NewRun(
        "mine", f"s{start}", "scheduled", row["version_id"], start, start, end, run_after=end
    )
    assert transact(folder.engine, lambda tx: create_run(tx, run, actor="t")) is not None


# -- the parser


def test_h14_the_parser_asks_for_the_next_runs(folder: Folder) -> None:
    folder.write("mine.py", text())
    assert folder.look() == ["mine.py"]
    assert folder.errors() == {}
    found = upcoming(folder)
    first = to_us(datetime(2026, 1, 1, tzinfo=UTC))
    assert len(found.runs) == 50
    assert found.runs[0] == (first, first + 6 * HOUR, first + 6 * HOUR)
    assert next_run_of(folder) == first + 6 * HOUR
    (row,) = fetch(folder.url, "SELECT schedule FROM dag WHERE dag_id = 'mine'")
    assert row["schedule"] == "Steps"


def test_h14_few_left_means_that_the_file_is_parsed_again(folder: Folder) -> None:
    folder.write("mine.py", text())
    folder.look()
    first = upcoming(folder)
    assert folder.look() == []
    start, end, _ = first.runs[-FEWEST]
    a_run(folder, *first.runs[0][:2])
    assert folder.look() == []
    a_run(folder, start, end)
    assert folder.look() == ["mine.py"]
    second = upcoming(folder)
    assert second.runs[0] == first.runs[-FEWEST + 1]
    assert len(second.runs) == 50
    (versions,) = fetch(folder.url, "SELECT count(*) AS n FROM dag_version")
    assert versions["n"] == 1, "what comes next is no part of the version"


def test_h14_without_catchup_the_list_begins_with_the_newest_that_was_missed(
    folder: Folder,
) -> None:
    folder.write("mine.py", text(more="catchup=False"))
    folder.look()
    starts = [from_us(run[0]) for run in upcoming(folder).runs]
    now = datetime.now(UTC)
    assert from_us(upcoming(folder).runs[0][2]) <= now < from_us(upcoming(folder).runs[1][2])
    assert starts == sorted(starts)


def test_h14_the_end_date_ends_the_list_for_good(folder: Folder) -> None:
    end = "catchup=True, end_date=datetime(2026, 1, 2, tzinfo=timezone.utc)"
    folder.write("mine.py", text(more=end))
    folder.look()
    found = upcoming(folder)
    assert (len(found.runs), found.ended) == (5, True)
    assert folder.look() == []


ERRORS = {
    "it raises": ("raise ValueError('my own')", "my own"),
    "no run": ("return 5", "must return a DagRunInfo or None, not 5"),
    "naive": (
        "return DagRunInfo.exact(datetime(2026, 1, 1))",
        "must give datetimes with a time zone",
    ),
    "standing still": (
        "return DagRunInfo.exact(datetime(2026, 1, 1, tzinfo=timezone.utc))",
        "does not advance: after the run of 2026-01-01",
    ),
    "backwards": (
        "return DagRunInfo(NOW, DataInterval(NOW, NOW - timedelta(days=1)))",
        "ends before it starts",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_h14_errors_are_import_errors_and_the_last_good_list_stays(
    folder: Folder, name: str
) -> None:
    folder.write("mine.py", text())
    folder.look()
    good = upcoming(folder)
    body, message = ERRORS[name]
    folder.write("mine.py", text(body))
    folder.look()
    assert message in folder.errors()["mine.py"]
    assert upcoming(folder) == good
    assert next_run_of(folder) == good.runs[0][2]


def test_h14_nobody_asks_the_database_while_there_is_no_such_timetable(folder: Folder) -> None:
    folder.good("plain.py")
    folder.look()
    short = RunningOut(folder.engine)
    assert short.files() == set()
    folder.engine.dispose()
    short._engine = None  # type: ignore[assignment]  # a statement would fail
    assert short.files() == set()


# -- the scheduler


def custom(runs: list[tuple[int, int, int]], **knobs: Any) -> Callable[[World], None]:
    """A DAG whose timetable said so."""
    timetable = SerializedTimetable(kind="custom", summary="Mine")
    made: SerializedDag = dag("d", task("a", empty=True), **knobs)
    made = msgspec.structs.replace(made, timetable=timetable)
    parsed = ParsedFile("c" * 64, "", [], [made], [], upcoming={"d": Upcoming(runs)})

    def store(world: World) -> None:
        error = world.transact(
            lambda tx: store_file(
                tx, "d.py", parsed, stamp="", took_us=0, paused=False, clock=world.clock
            )
        )
        assert error is None

    return store


def hourly(first: int, count: int) -> list[tuple[int, int, int]]:
    return [
        (first + i * HOUR, first + (i + 1) * HOUR, first + (i + 1) * HOUR) for i in range(count)
    ]


def logical(world: World) -> list[int]:
    return [row.logical_date for row in world.fetch("SELECT logical_date FROM dag_run ORDER BY id")]


def test_h14_runs_are_made_from_the_list_at_their_moment_s21(world: World) -> None:
    runs = hourly(START - 2 * HOUR, 4)
    custom(runs, catchup=True)(world)
    world.turns()
    assert logical(world) == [runs[0][0], runs[1][0]]
    world.clock.now += HOUR
    world.turns()
    assert logical(world) == [run[0] for run in runs[:3]]
    world.clock.now += DAY
    world.turns()
    assert logical(world) == [run[0] for run in runs]
    (row,) = world.fetch("SELECT next_run_after FROM dag")
    assert row.next_run_after is None


def test_h14_without_catchup_the_newest_that_is_due(world: World) -> None:
    runs = hourly(START - 5 * HOUR, 10)
    custom(runs, catchup=False)(world)
    world.turns()
    assert logical(world) == [runs[4][0]]
    (row,) = world.fetch("SELECT next_run_after FROM dag")
    assert row.next_run_after == runs[5][2]


def test_h14_a_new_list_goes_on_after_the_last_run(world: World) -> None:
    runs = hourly(START - 2 * HOUR, 2)
    custom(runs, catchup=True)(world)
    world.turns()
    world.clock.now += HOUR
    # It overlaps with what there has been, and an interval has one run.
    custom(hourly(START - 2 * HOUR, 5), catchup=True)(world)
    world.turns()
    assert logical(world) == [START - 2 * HOUR, START - HOUR, START]


@pytest.mark.parametrize("kind", ["cron_trigger", "delta_trigger", "events"])
def test_h14_built_in_triggers_make_runs_at_their_moments(world: World, kind: Any) -> None:
    table = SerializedTimetable(
        kind=kind,
        crons=("0 0 * * *",),
        delta_us=DAY if kind == "delta_trigger" else None,
        moments=tuple(to_us(datetime(2026, 2, day, tzinfo=UTC)) for day in range(1, 29)),
    )
    midnight = START // DAY * DAY
    made = msgspec.structs.replace(
        dag("d", task("a", empty=True), start_date=midnight - 2 * DAY, catchup=True),
        timetable=table,
    )
    world.store(made)
    world.turns()
    found = logical(world)
    assert found[0] == midnight - 2 * DAY
    assert all(later - earlier == DAY for earlier, later in pairwise(found))
    assert found[-1] <= world.clock.now
