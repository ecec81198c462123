"""The listings' shapes that scripts rely on, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

from roost.dag.model import SerializedTimetable
from roost.models import schema
from roost.support.clock import SECOND, to_us
from tests.cli.seed import MOMENT, Seed, chain

DAILY = SerializedTimetable(kind="cron", cron="0 3 * * *", summary="0 3 * * *")
START = to_us(datetime(2026, 1, 1, tzinfo=UTC))


def test_dags_list(seed: Seed) -> None:
    seed.dags(chain("b", "x"), chain("a", "x", timetable=DAILY, start_date=START, catchup=True))
    assert seed.json("dags", "list") == [
        {
            "dag_id": "a",
            "fileloc": str(seed.home / "dags" / "etl.py"),
            "owners": "me",
            "is_paused": False,
            "schedule": "0 3 * * *",
            "next_run": "2026-01-02T03:00:00+00:00",
        },
        {
            "dag_id": "b",
            "fileloc": str(seed.home / "dags" / "etl.py"),
            "owners": "me",
            "is_paused": False,
            "schedule": "None",
            "next_run": None,
        },
    ]


def test_dags_list_leaves_out_what_no_file_defines(seed: Seed) -> None:
    seed.dags(chain("a", "x"), chain("b", "x"))
    seed.dags(chain("b", "x"))
    assert [row["dag_id"] for row in seed.json("dags", "list")] == ["b"]


def test_import_errors_are_listed_and_announced(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    assert seed.json("dags", "list-import-errors") == []
    seed.dags(fileloc="bad.py", error="Traceback\n  boom\n")
    (row,) = seed.json("dags", "list-import-errors")
    assert row.pop("parsed_at") is not None
    assert row == {"filepath": str(seed.home / "dags" / "bad.py"), "error": "Traceback\n  boom"}
    listed = seed.cli("dags", "list")
    assert "1 DAG file(s) cannot be imported" in listed.stderr
    assert "boom" in seed.cli("dags", "list-import-errors").stdout


def test_list_runs(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    seed.run("a", "old", state="failed")
    seed.run("a", "new", date=MOMENT + 1)
    rows = seed.json("dags", "list-runs", "a")
    assert [row["run_id"] for row in rows] == ["new", "old"]
    moment = "2026-01-05T06:00:00+00:00"
    assert rows[1] == {
        "dag_id": "a",
        "run_id": "old",
        "run_type": "manual",
        "state": "failed",
        "logical_date": moment,
        "data_interval_start": moment,
        "data_interval_end": moment,
        "queued_at": moment,
        "start_date": moment,
        "end_date": "2026-01-05T06:00:01+00:00",
    }
    assert rows[0]["end_date"] is None
    only = seed.json("dags", "list-runs", "a", "--state", "running")
    assert [row["run_id"] for row in only] == ["new"]


def test_names_that_do_not_exist_suggest_the_nearest(seed: Seed) -> None:
    seed.dags(chain("sales", "load"))
    seed.run("sales", "monday")
    for args, message in (
        (("dags", "list-runs", "sale"), "there is no DAG 'sale'; did you mean 'sales'?"),
        (("dags", "state", "sales", "mondy"), "there is no run of sales 'mondy'; did you mean"),
        (("tasks", "state", "sales", "monday", "lod"), "there is no task of sales 'lod'; did"),
        (("dags", "details", "zzz"), "there is no DAG 'zzz'; DAG files are parsed by a scheduler"),
    ):
        result = seed.cli(*args)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"roost: {message}")


def test_an_unknown_dag_says_what_hinders_parsing(seed: Seed) -> None:
    seed.job("scheduler")
    assert f"is its file in {seed.home / 'dags'}?" in seed.cli("dags", "details", "zzz").stderr
    seed.dags(fileloc="bad.py", error="boom")
    assert "1 DAG file(s) cannot be imported" in seed.cli("dags", "details", "zzz").stderr


def test_state_prints_the_state_alone(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    assert seed.cli("dags", "state", "a", "r").stdout == "running\n"
    assert seed.cli("tasks", "state", "a", "r", "x").stdout == "none\n"
    seed.instance(key, "x", state="queued")
    assert seed.cli("tasks", "state", "a", "r", "x").stdout == "queued\n"


def test_states_for_dag_run(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    seed.instance(
        key, "x", state="success", try_number=1, start_date=MOMENT, hostname="h",
        end_date=MOMENT + 1_500_000,
    )  # fmt: skip
    assert seed.json("tasks", "states-for-dag-run", "a", "r") == [
        {
            "task_id": "x",
            "map_index": -1,
            "state": "success",
            "try_number": 1,
            "start_date": "2026-01-05T06:00:00+00:00",
            "end_date": "2026-01-05T06:00:01.500000+00:00",
            "duration": 1.5,
            "hostname": "h",
        },
        {
            "task_id": "y",
            "map_index": -1,
            "state": None,
            "try_number": 0,
            "start_date": None,
            "end_date": None,
            "duration": None,
            "hostname": None,
        },
    ]


def test_h17_names_of_instances_are_listed_where_there_are_any(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    seed.instance(key, "x", state="success", map_name="a.csv")
    (row,) = seed.json("tasks", "states-for-dag-run", "a", "r")
    assert row["map_name"] == "a.csv"


def test_tasks_list_and_details(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y", tags=["t"]))
    rows = seed.json("tasks", "list", "a")
    assert [(row["task_id"], row["downstream"]) for row in rows] == [("x", ["y"]), ("y", [])]
    facts = {
        row["property_name"]: row["property_value"] for row in seed.json("dags", "details", "a")
    }
    assert (facts["tasks"], facts["tags"], facts["max_active_runs"]) == (2, "t", 16)
    assert facts["fileloc"] == str(seed.home / "dags" / "etl.py")


def test_triggers_list(seed: Seed) -> None:
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    job = seed.job("triggerer")
    polled = seed.trigger(seed.instance(key, "x", state="deferred"), key, job_id=job)
    due = MOMENT + SECOND
    timer = seed.trigger(seed.instance(key, "y", state="deferred"), key, lane="timer", due_at=due)
    rows = seed.json("triggers", "list")
    pid = seed.scalar("SELECT pid FROM job")
    assert rows == [
        {
            "trigger_id": polled,
            "lane": "poll",
            "classpath": "mypkg.JobTrigger",
            "dag_id": "a",
            "run_id": "r",
            "task_id": "x",
            "map_index": -1,
            "triggerer": f"here:{pid}",
            "created_at": "2026-01-05T06:00:00+00:00",
            "due_at": None,
            "strikes": 0,
            "trouble": None,
            "timeout_at": None,
            "queue": "default",
            "code": "x",
            "watcher": None,
        },
        {
            **rows[0],
            "trigger_id": timer,
            "lane": "timer",
            "task_id": "y",
            "triggerer": None,
            "due_at": "2026-01-05T06:00:01+00:00",
        },
    ]


def test_next_execution_follows_the_timetable(seed: Seed) -> None:
    seed.dags(chain("a", "x", timetable=DAILY, start_date=START, catchup=True), chain("b", "x"))
    result = seed.cli("dags", "next-execution", "a", "-n", "3")
    assert result.stdout.splitlines() == [
        "2026-01-02T03:00:00+00:00",
        "2026-01-03T03:00:00+00:00",
        "2026-01-04T03:00:00+00:00",
    ]
    assert seed.cli("dags", "next-execution", "b").stdout == "None\n"


def test_pause_and_unpause(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    assert seed.cli("dags", "pause", "a").stdout == "a is paused\n"
    assert seed.json("dags", "list")[0]["is_paused"] is True
    assert seed.cli("dags", "pause", "a").stdout == "a is paused already\n"
    assert seed.cli("dags", "unpause", "a").stdout == "a is unpaused\n"
    assert seed.json("dags", "list")[0]["is_paused"] is False
    assert seed.cli("dags", "pause", "b").exit_code == 2


def test_info_shows_the_daemons_that_live(seed: Seed) -> None:
    seed.job("worker")
    seed.job("triggerer", alive=False)
    facts = {row["property"]: row["value"] for row in seed.json("info")}
    pid = seed.scalar("SELECT pid FROM job WHERE kind = 'worker'")
    assert facts["daemons"] == f"worker here:{pid}"
    assert facts["schema"] == schema.HEAD
    assert facts["home"] == str(seed.home)
