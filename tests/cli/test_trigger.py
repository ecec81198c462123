"""Runs by hand (S27): what is stored, what is refused, what is said."""

from __future__ import annotations

import json

import pytest

from roost.dag.model import SerializedTimetable
from roost.support import typedjson
from tests.cli.seed import Seed, chain


def test_a_run_is_stored_queued_with_its_conf_and_interval(seed: Seed) -> None:
    daily = SerializedTimetable(kind="cron", cron="0 3 * * *", summary="0 3 * * *")
    seed.dags(chain("a", "x", timetable=daily))
    rows = seed.json(
        "dags", "trigger", "a", "--logical-date", "2026-01-05T06:00", "--conf",
        '{"day": "x", "$roost": 1}',
    )  # fmt: skip
    assert rows == [
        {
            "dag_id": "a",
            "run_id": "manual__2026-01-05T06:00:00+00:00",
            "run_type": "manual",
            "state": "queued",
            "logical_date": "2026-01-05T06:00:00+00:00",
        }
    ]
    conf = seed.scalar("SELECT conf FROM dag_run")
    assert typedjson.decode(conf) == {"day": "x", "$roost": 1}
    (run,) = seed.json("dags", "list-runs", "a")
    assert run["data_interval_start"] == "2026-01-04T03:00:00+00:00"
    assert run["data_interval_end"] == "2026-01-05T03:00:00+00:00"
    assert seed.scalar("SELECT event FROM event_log") == "create"


def test_the_same_run_id_twice_is_an_error_and_one_run(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    assert seed.cli("dags", "trigger", "a", "--run-id", "r").exit_code == 0
    again = seed.cli("dags", "trigger", "a", "--run-id", "r")
    assert again.exit_code == 2
    assert again.stderr == (
        "roost: run 'r' of a exists already (queued); give another --run-id, or --exist-ok\n"
    )
    assert seed.scalar("SELECT count(*) FROM dag_run") == 1


def test_the_same_run_id_twice_may_be_all_right(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    args = ("dags", "trigger", "a", "--run-id", "r", "--exist-ok")
    assert seed.cli(*args).stdout == "triggered a: run r\n"
    again = seed.cli(*args)
    assert (again.exit_code, again.stdout) == (0, "a has run r already (queued)\n")
    assert seed.scalar("SELECT count(*) FROM dag_run") == 1
    assert "--exist-ok needs --run-id" in seed.cli("dags", "trigger", "a", "--exist-ok").stderr
    seed.sql("UPDATE dag_run SET state = 'failed', end_date = 1")
    assert seed.cli(*args, "--wait").exit_code == 1


def test_what_hinders_the_run_is_said(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.cli("dags", "pause", "a")
    seed.dags(fileloc="etl.py", error="boom")
    said = seed.cli("dags", "trigger", "a", "--run-id", "r")
    assert said.exit_code == 0
    assert said.stdout == "triggered a: run r\n"
    assert said.stderr.splitlines() == [
        "DAG a is paused: the run waits for `roost dags unpause a`",
        "etl.py cannot be imported now; the run uses its last good version",
        "no scheduler is running: the run waits until one is started",
        "no worker is running: the run waits until one is started",
    ]


def test_nothing_is_said_where_nothing_hinders(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.job("scheduler")
    seed.job("worker")
    assert seed.cli("dags", "trigger", "a").stderr == ""


def test_a_dag_that_was_never_parsed_and_one_whose_file_is_gone(seed: Seed) -> None:
    assert "parsed by a scheduler and none is running" in seed.cli("dags", "trigger", "a").stderr
    seed.dags(chain("a", "x"))
    seed.dags(chain("b", "x"))
    refused = seed.cli("dags", "trigger", "a")
    assert refused.exit_code == 2
    assert "no longer defined by" in refused.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--conf", "{"], "Invalid value for '--conf': not JSON"),
        (["--conf", "[1]"], "give a JSON object"),
        (["--run-id", "scheduled__2026"], "begin ids of the scheduler's own runs"),
        (["--run-id", ""], "give 1 to 250 printable characters"),
        (["--run-id", "a\nb"], "give 1 to 250 printable characters"),
        (["--logical-date", "soon"], "'soon' is no ISO 8601 moment"),
    ],
)
def test_wrong_options_are_wrong_usage(seed: Seed, args: list[str], message: str) -> None:
    seed.dags(chain("a", "x"))
    result = seed.cli("dags", "trigger", "a", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert seed.scalar("SELECT count(*) FROM dag_run") == 0


def test_a_date_without_a_zone_is_in_the_default_time_zone(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.env["ROOST__CORE__DEFAULT_TIMEZONE"] = "Europe/Berlin"
    (row,) = seed.json("dags", "trigger", "a", "--logical-date", "2026-07-01")
    assert row["logical_date"] == "2026-06-30T22:00:00+00:00"


def test_json_stays_json_with_warnings(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    result = seed.cli("dags", "trigger", "a", "-o", "json")
    assert json.loads(result.stdout)[0]["state"] == "queued"
    assert "no scheduler is running" in result.stderr


@pytest.mark.parametrize("schedule", ["0 0 * * *", "0 0 29 2 *"])
def test_a_logical_date_at_the_ends_of_the_calendar(seed: Seed, schedule: str) -> None:
    timetable = SerializedTimetable(kind="cron", summary=schedule, cron=schedule)
    seed.dags(chain("a", "x", timetable=timetable))
    for date in ("0001-01-01", "9999-12-31"):
        refused = seed.cli("dags", "trigger", "a", "--logical-date", date)
        assert refused.exit_code == 2
        assert "is out of range; give a year from 2 to 9998" in refused.stderr
    for date in ("0002-01-01", "9998-12-31"):
        assert seed.cli("dags", "trigger", "a", "--logical-date", date).exit_code == 0
