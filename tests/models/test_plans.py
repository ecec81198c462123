"""Hot statements go by an index, whatever the tables hold: 50,000 rows and a few that matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.pool import NullPool

from roost.models import transitions
from roost.models.engine import Tx, open_engine, read, transact
from roost.models.queries import (
    awaited,
    dags,
    dispatches,
    external,
    handoffs,
    inbox,
    jobs,
    look,
    runs,
    triggers,
)
from roost.models.states import Event, RunEvent
from roost.support.processes import Process
from tests.support.databases import Databases
from tests.support.statements import watching

_ROWS = 50_000
_ME = Process("host", "host", 1, 1, "t")
_LARGE = {"external_event", "dispatch", "task_instance", "dag_run", "trigger", "event_log"}

_FILL = """
INSERT INTO dag_version (id, dag_id, hash, code_hash, fileloc, data, created_at)
VALUES (1, 'd', 'h', 'c', 'f', '{}', 0);

INSERT INTO dag (dag_id, fileloc, version_id, is_active, updated_at) VALUES ('d', 'f', 1, TRUE, 0);

INSERT INTO dag_usage (dag_id, max_runs) VALUES ('d', 100);

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO dag_run (id, dag_id, run_id, run_type, state, version_id, logical_date,
interval_start, interval_end, run_after, queued_at, end_date, job_id)
SELECT i, 'd', 'r' || i, 'scheduled', CASE WHEN i > 4990 THEN 'running' ELSE 'success' END,
1, i, i, i + 1, i, i, CASE WHEN i > 4990 THEN NULL ELSE 1 END, 1 FROM n;

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
INSERT INTO task_instance (id, dag_run_id, task_id, state, dispatch_id)
SELECT i, (i - 1) / 10 + 1, 't' || (i % 10),
CASE WHEN i > 49900 THEN 'running' ELSE 'success' END, i FROM n;

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
INSERT INTO dispatch (id, ti_id, dag_run_id, try_number, queue, priority, created_at,
ended_at, outcome, settled, job_id, claimed_at)
SELECT i, i, (i - 1) / 10 + 1, 1, 'default', 1, 0, CASE WHEN i > 49910 THEN NULL ELSE 1 END,
CASE WHEN i > 49910 THEN NULL ELSE '{}' END, i < 49901,
CASE WHEN i > 49980 THEN NULL ELSE 1 END, CASE WHEN i > 49980 THEN NULL ELSE 1 END FROM n;

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
INSERT INTO trigger (id, ti_id, dag_run_id, dispatch_id, lane, classpath, source, kwargs,
next_kwargs, code_hash, fileloc, queue, created_at, external_key)
SELECT i, i, (i - 1) / 10 + 1, i, CASE WHEN i > 30000 THEN 'poll' ELSE 'external' END, 'c',
CASE WHEN i > 30000 THEN 's' WHEN i > 10000 THEN 'roost.triggers.external:ExternalTrigger'
ELSE 'roost.triggers.runs:DagRunTrigger' END, '{}', '{}', 'c', 'f', 'q', 0,
CASE WHEN i > 30000 THEN NULL WHEN i > 10000 THEN 'wait/' || i ELSE 'roost:run/d/r' || i END
FROM n;

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
INSERT INTO external_event (external_key, payload, sender, created_at, expires_at, taken_at)
SELECT CASE WHEN i > 1000 THEN 'event/' || i ELSE 'x/' || i END, '1', 's', 0,
CASE WHEN i > 49990 THEN 1 ELSE 9000000000000000 END, CASE WHEN i > 25000 THEN 1 ELSE NULL END
FROM n;

INSERT INTO external_event (external_key, payload, sender, created_at, expires_at)
VALUES ('wait/20000', '1', 's', 0, 9000000000000000);

INSERT INTO trigger_event (trigger_id, epoch, kind, payload, created_at)
VALUES (50000, 0, 'fired', 'null', 0);

WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
INSERT INTO event_log (at, actor, event, ti_id) SELECT i, 'a', 'start', i FROM n
"""
"""Of the triggers 10,000 wait for runs and 20,000 for events, of which 25,000 are kept; one of them
is for one of those. Ten task instances a run; of the last ten runs all are running, ten outcomes
are unsettled, and twenty dispatches wait for a worker."""


@pytest.fixture(scope="module")
def full(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Databases of each kind, filled once."""
    with (
        databases.postgresql() as postgres,
        databases.sqlite(tmp_path_factory.mktemp("full")) as sqlite,
    ):
        urls = {"postgresql": postgres, "sqlite": sqlite}
        for url in urls.values():
            _fill(url)
        yield urls


def _fill(url: str) -> None:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as db:
        for statement in _FILL.split(";"):
            db.execute(sa.text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sa.text("ANALYZE"))
    engine.dispose()


@pytest.fixture
def engine(full: dict[str, str], database_kind: str) -> Iterator[Engine]:
    made = open_engine(full[database_kind])
    yield made
    made.dispose()


def plans(engine: Engine, step: Callable[[Tx], object]) -> Iterator[tuple[str, str]]:
    """Every statement of a step with its plan; nothing of it stays."""
    seen: list[tuple[str, Any]] = []

    def note(statement: str, parameters: Any) -> None:
        seen.append((statement, parameters))

    with engine.connect() as db:
        transaction = db.begin()
        with watching(note):
            step(Tx(db))
        how = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
                rows = db.exec_driver_sql(f"{how} {statement}", parameters).fetchall()
                yield statement, "\n".join(str(row[-1]) for row in rows)
        transaction.rollback()


def reads_all_of(plan: str, dialect: str) -> set[str]:
    """Tables of which a plan reads every row."""
    if dialect == "postgresql":
        return set(re.findall(r"Seq Scan on (\w+)", plan))
    # A scan over a partial or covering index counts too, unless its WHERE keeps it small.
    return {
        table
        for table, rest in re.findall(r"^SCAN (\w+)(.*)$", plan, flags=re.MULTILINE)
        if "USING" not in rest
    }


def _register(tx: Tx) -> int:
    return jobs.register(tx, "worker", _ME, "/run")


STEPS: dict[str, Callable[[Tx], object]] = {
    "look": lambda tx: look.look(tx, 1),
    "lease": lambda tx: jobs.owns_lease(tx, 1),
    "adopt": lambda tx: runs.adopt_runs(tx, 1, 200),
    "instances": lambda tx: runs.instances(tx, _ROWS // 10),
    "timeouts": lambda tx: runs.trigger_timeouts(tx, _ROWS // 10),
    "reread": lambda tx: runs.reread(tx, 2),
    "release": runs.release_runs_of_ended_schedulers,
    "outcomes": lambda tx: inbox.take_ended_dispatches(tx, 1, 1000),
    "events": lambda tx: inbox.fired_triggers(tx, 1, 1000, 1 << 24),
    "awaited by key": lambda tx: awaited.waiting_for(tx, ["roost:run/d"], [_ROWS]),
    "awaited": lambda tx: awaited.waiting_after(tx, 0, 1000),
    "awaited runs": lambda tx: awaited.runs_of(
        tx, [awaited.Target("d", "r1", None, ("t1",)), awaited.Target("d", None, 5, ("t1",))]
    ),
    "fire awaited": lambda tx: awaited.fire(tx, [awaited.Fired(_ROWS, "fired", "null")], 1),
    "external look": lambda tx: triggers.look(tx, 1),
    "external match": lambda tx: external.match(tx, lambda _id, payload: payload),
    "external prune": lambda tx: external.prune(tx, 100),
    "external waiting": lambda tx: external.waiting(tx, "wait/20000"),
    "claim triggers": lambda tx: triggers.claim(tx, _register(tx), 10),
    "claim of queues": lambda tx: triggers.claim(tx, _register(tx), 10, ["q"]),
    "give triggers back": lambda tx: triggers.give_back(tx, 1, 10, ["q"]),
    "forget triggers": lambda tx: inbox.delete_triggers(tx, [_ROWS]),
    "forget xcoms": lambda tx: inbox.clear_xcoms(tx, [_ROWS]),
    "move": lambda tx: transitions.move(
        tx,
        Event.SUCCEED,
        [{"id": _ROWS - n, "end_date": 1, "if_dispatch_id": _ROWS - n} for n in range(50)],
        actor="test",
        sets=("end_date",),
        guards=("dispatch_id",),
    ),
    "lost": lambda tx: handoffs.end_lost_dispatches(tx, "{}"),
    "claim": lambda tx: dispatches.claim(tx, _register(tx), ["default"], 10),
    "end": lambda tx: dispatches.end_dispatches(tx, 1, {_ROWS - 50: "{}"}),
    "held": lambda tx: dispatches.held(tx, 1),
    "waiting": lambda tx: dispatches.waiting(tx, ["default"], 100),
    "due": lambda tx: dags.due_dags(tx, 1, 100),
    "last interval": lambda tx: dags.last_interval(tx, "d"),
    "start": lambda tx: transitions.move_runs(tx, RunEvent.START, [1], actor="t"),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_hot_statement_reads_a_large_table(engine: Engine, name: str) -> None:
    found = list(plans(engine, STEPS[name]))
    assert found
    for statement, plan in found:
        scanned = {_table(name, statement) for name in reads_all_of(plan, engine.dialect.name)}
        assert not scanned & _LARGE, f"{statement}\n{plan}"


def _table(name: str, statement: str) -> str:
    """The table behind a name in a plan of SQLite, which knows the alias only."""
    found = re.search(rf"\b(\w+)(?: AS)? {re.escape(name)}\b", statement)
    return found.group(1) if found and found.group(1) in _LARGE else name


def test_the_guard_sees_a_scan(engine: Engine) -> None:
    """Were it blind, all of the above would pass."""
    bad = "SELECT id FROM event_log WHERE actor = 'x'"
    with read(engine) as tx:
        how = "EXPLAIN" if tx.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
        if tx.dialect == "postgresql":
            tx.connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
        rows = tx.connection.exec_driver_sql(f"{how} {bad}").fetchall()
        assert reads_all_of("\n".join(str(row[-1]) for row in rows), tx.dialect) == {"event_log"}


@pytest.mark.parametrize(
    "name",
    [
        "look",
        "external look",
        "external match",
        "outcomes",
        "events",
        "claim",
        "claim triggers",
        "claim of queues",
        "give triggers back",
        "move",
        "adopt",
    ],
)
def test_what_is_read_is_what_matters_not_what_is_stored(engine: Engine, name: str) -> None:
    """PostgreSQL's own count of rows that each node of the plan looked at."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite does not count")
    seen: list[tuple[str, Any]] = []

    def note(statement: str, parameters: Any) -> None:
        seen.append((statement, parameters))

    def count(tx: Tx) -> list[int]:
        with watching(note):
            savepoint = tx.connection.begin_nested()
            STEPS[name](tx)
            savepoint.rollback()
        touched = []
        for statement, parameters in seen:
            if not statement.startswith(("SELECT", "WITH", "UPDATE")):
                continue
            savepoint = tx.connection.begin_nested()
            rows = tx.connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", parameters
            ).fetchall()
            savepoint.rollback()
            plan = "\n".join(str(row[0]) for row in rows)
            numbers = re.findall(r"rows=(\d+)", plan) + re.findall(r"Removed by \w+: (\d+)", plan)
            touched += [int(number) for number in numbers]
        return touched

    assert max(transact(engine, count)) <= 200


def test_where_the_rows_are(full: dict[str, str]) -> None:
    """The databases of this file are what its tests believe."""
    for url in full.values():
        engine = sa.create_engine(url, poolclass=NullPool)
        with engine.connect() as db:
            for table in ("task_instance", "dispatch", "trigger", "event_log"):
                number = db.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar()  # noqa: S608
                assert number == _ROWS
        engine.dispose()
    assert Path(full["sqlite"].removeprefix("sqlite:///")).exists()
