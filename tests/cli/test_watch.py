"""Following the event log: every event once, none missed; and live progress on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.cli import watch
from roost.models.engine import open_engine, read
from roost.models.queries import listing
from roost.models.queries.event_tail import EventTail
from roost.support.config import load_config
from tests.cli.seed import MOMENT, Seed, chain
from tests.support.daemons import Daemons
from tests.support.waiting import wait_until

DAG = """
from datetime import datetime
from roost.dag import DAG
from roost.operators import BashOperator
with DAG("quick", schedule=None, start_date=datetime(2026, 1, 1)):
    one = BashOperator(task_id="one", bash_command="true")
    one >> BashOperator(task_id="two", bash_command="true")
"""


def log(seed: Seed, number: int, run_key: int) -> None:
    seed.sql(
        "INSERT INTO event_log (id, at, actor, event, dag_run_id, to_state) "
        "VALUES (:id, :at, 't', 'start', :run, 'running')",
        id=number,
        at=MOMENT,
        run=run_key,
    )


def test_every_event_once_even_when_an_older_id_is_committed_later(seed: Seed) -> None:
    seed.dags(chain("a", "x"))
    mine, other = seed.run("a", "mine"), seed.run("a", "other", date=MOMENT + 1)
    engine = open_engine(seed.url)
    try:
        log(seed, 10, mine)
        with read(engine) as tx:
            everything, one = EventTail(tx), EventTail(tx, mine)
        for number, run in ((12, mine), (13, other), (14, mine)):
            log(seed, number, run)
        with read(engine) as tx:
            assert [row.id for row in everything.new(tx)] == [12, 13, 14]
            assert [row.id for row in one.new(tx)] == [12, 14]
            assert everything.new(tx) == []
        late = engine.dialect.name == "postgresql"  # SQLite commits in the order of ids
        if late:
            log(seed, 11, mine)
        log(seed, 15, mine)
        with read(engine) as tx:
            assert [row.id for row in everything.new(tx)] == ([11, 15] if late else [15])
            assert [row.id for row in one.new(tx)] == ([11, 15] if late else [15])
    finally:
        engine.dispose()


def test_wait_shows_every_task_on_both_databases(daemons: Daemons, roost_home: Path) -> None:
    (roost_home / "dags" / "quick.py").write_text(DAG)
    daemons.start_all("scheduler", "worker")
    wait_until(lambda: "quick" in daemons.cli("dags", "list").stdout, what="the DAG file")
    rows = daemons.json("dags", "trigger", "quick", "--run-id", "r", "--wait")
    assert [(row["run_id"], row["state"]) for row in rows] == [("r", "success")]
    done = daemons.cli("dags", "trigger", "quick", "--run-id", "s", "--wait")
    moves = [tuple(line.split()[1:3]) for line in done.stdout.splitlines()[1:-1]]
    assert moves == [
        ("run", "running"),
        ("one", "running"),
        ("one", "success"),
        ("two", "running"),
        ("two", "success"),
        ("run", "success"),
    ]


def test_a_broken_dag_file_is_told_once_and_when_it_is_mended(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_ERRORS_S", 0.0)
    errors = watch.ImportErrors()
    engine = open_engine(seed.url)

    def told() -> list[str]:
        with read(engine) as tx:
            return errors.new(tx)

    try:
        assert told() == []
        seed.dags(error="Traceback (most recent call last):\nImportError: no pandas")
        line = "etl.py cannot be imported: {}; see `roost dags list-import-errors`"
        assert told() == [line.format("ImportError: no pandas")]
        assert told() == []
        seed.dags(error="SyntaxError: invalid syntax")
        assert told() == [line.format("SyntaxError: invalid syntax")]
        seed.dags(chain("a", "x"))
        assert told() == ["etl.py is mended or gone"]
    finally:
        engine.dispose()


def test_a_lost_task_is_shown_with_its_reason(seed: Seed) -> None:
    """It goes back to scheduled, which is not shown, and then runs once more."""
    seed.dags(chain("a", "x"))
    key = seed.run("a", "r")
    engine = open_engine(seed.url)
    try:
        with read(engine) as tx:
            tail = EventTail(tx)
        seed.sql(
            "INSERT INTO event_log (id, at, actor, event, dag_run_id, ti_id, try_number, to_state, "
            "reason) SELECT 1, :at, 't', 'lose', :run, id, 1, 'scheduled', 'its template died' "
            "FROM task_instance",
            at=MOMENT,
            run=key,
        )
        with read(engine) as tx:
            (row,) = tail.new(tx)
        line = watch.event_line(row, with_run=False)
        assert line is not None
        assert line.split()[1:] == ["x", "lost", "its", "template", "died"]
    finally:
        engine.dispose()


def test_waiting_for_a_run_that_does_not_move_names_the_command_that_says_why(
    seed: Seed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once, and the waiting goes on to the end of the run."""
    seed.dags(chain("a", "x"))
    seed.run("a", "mine", state="queued")
    monkeypatch.setattr(watch, "_STILL_S", 0.0)
    engine = open_engine(seed.url)
    looks = iter(range(9))

    def wait(_pace: watch.Pace) -> None:
        if next(looks) == 5:
            seed.sql("UPDATE dag_run SET state = 'failed', end_date = 1")

    monkeypatch.setattr(watch.Pace, "wait", wait)
    try:
        with read(engine) as tx:
            tail = EventTail(tx)
            run = listing.run_row(tx, "a", "mine")
        config = load_config(seed.env)
        watch.follow_run(config, engine, run, tail, err=True)
    finally:
        engine.dispose()
    said = capsys.readouterr().err
    assert said.count("nothing moves; `roost tasks why a mine TASK` says why") == 1
