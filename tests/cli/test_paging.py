"""Listings of any length: a limit, what it has cut off, and no more memory for more rows."""

from __future__ import annotations

from typing import Any

import pytest

from roost.cli.output import emit
from roost.support.clock import SECOND, now_us
from tests.cli.seed import MOMENT, Seed, chain

_MANY = 2_500


@pytest.fixture
def timers(seed: Seed) -> Seed:
    """2,500 timers of watchers' making, which need no task each; the last ten are another's."""
    seed.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :many) "
        "INSERT INTO trigger (lane, classpath, source, kwargs, next_kwargs, code_hash, fileloc, "
        "queue, created_at, due_at, watcher_hash) SELECT 'timer', 'roost.triggers.DateTimeTrigger',"
        " 's', '{}', '{}', 'c', 'f', CASE WHEN i > :few THEN 'gpu' ELSE 'default' END, :at, :at, "
        "CAST(i AS text) FROM n",
        many=_MANY, few=_MANY - 10, at=MOMENT,
    )  # fmt: skip
    return seed


def test_limit_of_triggers_and_what_it_has_cut_off(timers: Seed) -> None:
    listed = timers.cli("triggers", "list", "-o", "json")
    assert listed.exit_code == 0
    assert listed.stdout.count('"trigger_id"') == 1_000
    assert listed.stderr.startswith("1,500 more: `--limit 0` lists all, --dag-id, ")
    assert [row["trigger_id"] for row in timers.json("triggers", "list", "--limit", "2")] == [1, 2]
    everything = timers.cli("triggers", "list", "--limit", "0", "-o", "plain")
    ids = [int(line.split("\t")[0]) for line in everything.stdout.splitlines()[1:]]
    assert (ids, everything.stderr) == (list(range(1, _MANY + 1)), "")


def test_limit_counts_what_was_asked_for(timers: Seed) -> None:
    """What is left is counted of the rows that were chosen, and nothing is said of none."""
    cut = timers.cli("triggers", "list", "--queue", "gpu", "--limit", "4")
    assert cut.stderr.startswith("6 more: ")
    assert cut.stdout.count("\n") == 6
    whole = timers.cli("triggers", "list", "--queue", "gpu", "--limit", "10")
    assert whole.stderr == ""
    assert timers.cli("triggers", "list", "--limit", "-1").exit_code == 2


def test_limit_of_events(keyed: Seed) -> None:
    """Newest first; several pages, and what is left."""
    keyed.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :many) "
        "INSERT INTO external_event (external_key, payload, sender, created_at, expires_at) "
        "SELECT CASE WHEN i <= 3 THEN 'few' ELSE 'many' END, 'x', 'me', :now, :till FROM n",
        many=_MANY, now=MOMENT, till=now_us() + 3600 * SECOND,
    )  # fmt: skip
    listed = keyed.cli("events", "list", "-o", "json")
    assert listed.stdout.count('"id"') == 1_000
    assert listed.stderr == "1,500 more: `--limit 0` lists all, KEY and --state narrow it down\n"
    ids = [row["id"] for row in keyed.json("events", "list", "--limit", "0")]
    assert ids == list(range(_MANY, 0, -1))
    few = keyed.cli("events", "list", "few", "--limit", "2", "-o", "plain")
    assert [line.split("\t")[0] for line in few.stdout.splitlines()[1:]] == ["3", "2"]
    assert few.stderr.startswith("1 more: ")


def test_triggers_by_what_people_ask(seed: Seed) -> None:
    """D20: run, task, class by name or path, trouble; the rest is in test_triggers."""
    seed.dags(chain("a", "x", "y"))
    key = seed.run("a", "r")
    x = seed.instance(key, "x", state="deferred", try_number=1)
    y = seed.instance(key, "y", state="deferred", try_number=1)
    one = seed.trigger(x, key)
    other = seed.trigger(y, key, classpath="mypkg.OtherJobTrigger", strikes=1, trouble="blocked")
    for args, found in (
        (["--run-id", "r"], [one, other]),
        (["--run-id", "q"], []),
        (["--task-id", "x"], [one]),
        (["--classpath", "JobTrigger"], [one]),
        (["--classpath", "mypkg.OtherJobTrigger"], [other]),
        (["--classpath", "a_rather_long_name.that.is_nowhere.JobTrigger"], []),
        (["--in-trouble"], [other]),
    ):
        assert [row["trigger_id"] for row in seed.json("triggers", "list", *args)] == found, args


@pytest.mark.parametrize("output", ["json", "yaml", "plain", "table"])
def test_rows_are_printed_as_they_come(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """However many there are: when one is read, all but the last few are printed already."""
    behind = [0]
    printed = [0]

    def rows() -> Any:
        for number in range(10_000):
            printed[0] += capsys.readouterr().out.count("row") if number % 500 == 0 else 0
            behind[0] = max(behind[0], number - printed[0])
            yield {"name": f"row{number}"}

    emit(rows(), ["name"], output)
    assert printed[0] + capsys.readouterr().out.count("row") == 10_000
    assert behind[0] <= 2_600
