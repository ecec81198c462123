"""``dags backfill``: what it creates, refuses, shows and says (H21)."""

from __future__ import annotations

import pytest
from click.testing import Result

from roost.cli.progress import progress_line
from roost.dag.model import SerializedTimetable
from tests.cli.seed import Seed, chain

DAILY = SerializedTimetable(kind="cron", cron="0 0 * * *", summary="@daily")


def daily(seed: Seed) -> None:
    seed.dags(chain("a", "x", timetable=DAILY))


def run(seed: Seed, *more: str, first: str = "2026-01-01", last: str = "2026-01-03") -> Result:
    return seed.cli("dags", "backfill", "a", "-s", first, "-e", last, "--no-wait", *more)


def test_a_dry_run_says_what_each_interval_would_get(seed: Seed) -> None:
    daily(seed)
    args = ("dags", "backfill", "a", "-s", "2026-01-01", "-e", "2026-01-02", "--dry-run")
    rows = seed.json(*args)
    assert rows == [
        {
            "logical_date": f"2026-01-0{day}T00:00:00+00:00",
            "run_id": f"backfill__2026-01-0{day}T00:00:00+00:00",
            "state": None,
            "action": "create",
        }
        for day in (1, 2)
    ]
    backwards = seed.json(*args, "--run-backwards")
    assert backwards == rows[::-1]
    assert seed.scalar("SELECT count(*) FROM dag_run") == 0


def test_it_creates_the_runs_and_says_that_nobody_starts_them(seed: Seed) -> None:
    daily(seed)
    done = run(seed, "--conf", '{"k": 1}', "--max-active-runs", "3")
    assert done.exit_code == 0
    assert done.stdout == "backfill 1 of a: 3 runs\n"
    assert "no scheduler is running: the run waits until one is started" in done.stderr
    (row,) = seed.sql("SELECT * FROM backfill")
    assert (row.max_active_runs, row.is_reversed, row.reprocess) == (3, False, "none")
    assert {r.conf for r in seed.sql("SELECT conf FROM dag_run")} == {'{"k":1}'}


def test_the_same_again_finds_it_under_way_and_another_is_refused(seed: Seed) -> None:
    daily(seed)
    run(seed)
    again = run(seed)
    assert again.stdout == "backfill 1 of a is under way already: 3 runs\n"
    refused = run(seed, last="2026-01-04")
    assert refused.exit_code == 2
    assert "is still under way; wait for it, or end it with" in refused.stderr
    assert seed.scalar("SELECT count(*) FROM dag_run") == 3


def test_cancelled_it_starts_no_more_and_a_later_one_can_repeat_it(seed: Seed) -> None:
    daily(seed)
    run(seed)
    done = seed.cli("dags", "backfill", "a", "--cancel")
    assert done.stdout == "backfill 1 of a is cancelled: 3 runs do not start, 0 go on\n"
    assert {r.state for r in seed.sql("SELECT state FROM dag_run")} == {"failed"}
    left = run(seed)
    assert left.stdout == "nothing to backfill of a: all 3 intervals have runs\n"
    again = run(seed, "--reprocess-behavior", "failed", last="2026-01-04")
    assert again.stdout == "backfill 2 of a: 4 runs\n"
    assert seed.scalar("SELECT count(*) FROM dag_run WHERE state = 'queued'") == 4


def test_it_is_paused_unpaused_and_listed(seed: Seed) -> None:
    daily(seed)
    none = seed.cli("dags", "backfill", "a", "--pause")
    assert (none.exit_code, "no backfill of a is under way" in none.stderr) == (2, True)
    run(seed)
    assert seed.cli("dags", "backfill", "a", "--pause").stdout == "backfill 1 of a is paused\n"
    (row,) = seed.json("dags", "backfill", "a", "--list")
    assert (row["backfill_id"], row["state"]) == (1, "paused; 3 queued")
    assert (row["from_date"], row["ended_at"]) == ("2026-01-01T00:00:00+00:00", None)
    seed.cli("dags", "backfill", "a", "--unpause")
    assert seed.json("dags", "backfill", "a", "--list")[0]["state"] == "3 queued"


def test_why_names_the_limit_and_the_pause_of_the_backfill(seed: Seed) -> None:
    """H21: the DAG's own limit says nothing about its runs."""
    daily(seed)
    seed.job("scheduler")
    run(seed, "--max-active-runs", "1")
    seed.sql("UPDATE dag_run SET state = 'running' WHERE id = 1")
    why = ("tasks", "why", "a", "backfill__2026-01-02T00:00:00+00:00", "x")
    assert seed.cli(*why).stdout == "its run waits: 1 of 1 runs of backfill 1 are active\n"
    seed.cli("dags", "backfill", "a", "--pause")
    assert seed.cli(*why).stdout.startswith("backfill 1 is paused; `roost dags backfill a")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "say from which logical date on: -s DATE"),
        (["-s", "2026-01-02", "-e", "2026-01-01"], "-s 2026-01-02 is later than -e 2026-01-01"),
        (["-s", "soon"], "'soon' is no ISO 8601 moment"),
        (["-s", "9000-01-01"], "is not over before"),
        (["-s", "2026-01-01", "--max-active-runs", "0"], "0 is not in the range"),
        (["-s", "2026-01-01", "--conf", "["], "not JSON"),
    ],
)
def test_wrong_use_is_one_line(seed: Seed, args: list[str], message: str) -> None:
    daily(seed)
    refused = seed.cli("dags", "backfill", "a", *args)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_dag_without_a_schedule_is_refused_in_one_line(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    refused = run(seed)
    assert refused.stderr == (
        "roost: DAG 'a' has schedule None: there are no intervals to backfill; "
        "`roost dags trigger` starts single runs\n"
    )


def test_a_range_without_an_interval(seed: Seed) -> None:
    daily(seed)
    done = run(seed, first="2026-01-01T01:00", last="2026-01-01T02:00")
    assert done.stdout == "nothing to backfill of a: there is no interval in the range\n"


def one_left(seed: Seed) -> None:
    """A backfill of three runs: one failed, one succeeded, one runs."""
    daily(seed)
    run(seed)
    seed.sql("UPDATE dag_run SET state = 'failed', end_date = 2 WHERE id = 1")
    seed.sql("UPDATE dag_run SET state = 'success', end_date = 2 WHERE id = 2")
    seed.sql("UPDATE dag_run SET state = 'running' WHERE id = 3")


def test_waiting_ends_with_a_summary_and_fails_with_a_failed_run(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_left(seed)
    finish = "UPDATE dag_run SET state = 'success', end_date = 2 WHERE end_date IS NULL"
    monkeypatch.setattr("roost.cli.watch.Pace.wait", lambda _: seed.sql(finish))
    done = seed.cli("dags", "backfill", "a", "-s", "2026-01-01", "-e", "2026-01-03")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].endswith(" s: 2 success, 1 failed")
    lines = done.stderr.splitlines()
    assert "3/3 done, 1 failed, 0 running" in lines[0]
    name = "backfill__2026-01-01T00:00:00+00:00"
    assert lines[1] == f"failed: {name}; `roost tasks states-for-dag-run a {name}`"


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    one_left(seed)
    monkeypatch.setattr("roost.cli.watch.Pace.wait", interrupted)
    done = seed.cli("dags", "backfill", "a", "-s", "2026-01-01", "-e", "2026-01-03")
    assert done.exit_code == 130
    assert "backfill 1 goes on; the same command again watches it" in done.stderr
    assert seed.scalar("SELECT state FROM dag_run WHERE id = 3") == "running"


@pytest.mark.parametrize(
    ("states", "line"),
    [
        ({"queued": 4}, "[........................] 0/4 done, 0 running"),
        (
            {"success": 2, "failed": 1, "running": 1},
            "[##################......] 3/4 done, 1 failed, 1 running, 1/s, 1 s left",
        ),
        ({"success": 4}, "[########################] 4/4 done, 0 running, 1.5/s"),
    ],
)
def test_the_line_says_how_far_it_is(states: dict[str, int], line: str) -> None:
    assert progress_line(states, 1, 2.0) == line
