"""Statements for both dialects, and transactions that are taken again after a passing conflict."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from roost.exceptions import ConfigError
from roost.models import engine as engine_module
from roost.models.engine import (
    Sql,
    Tx,
    is_disconnect,
    is_passing,
    is_transient,
    open_engine,
    read,
    transact,
)
from roost.support.clock import SECOND, now_us


@pytest.mark.parametrize(
    ("source", "sqlite", "postgres"),
    [
        ("a = :a_1 AND b = :b", "a = :a_1 AND b = :b", "a = %(a_1)s AND b = %(b)s"),
        ("x::text, '12:30'", "x::text, '12:30'", "x::text, '12:30'"),
        ("a % 2, 'x%'", "a % 2, 'x%'", "a %% 2, 'x%%'"),
        ("{true} {false}", "1 0", "TRUE FALSE"),
        ("SELECT 1 {skip_locked}", "SELECT 1 ", "SELECT 1 FOR UPDATE SKIP LOCKED"),
        ("SELECT 1 {for_update}", "SELECT 1 ", "SELECT 1 FOR UPDATE"),
        ("SELECT 1 {for_update:t}", "SELECT 1 ", "SELECT 1 FOR UPDATE OF t"),
        ("SELECT 1 {for_share}", "SELECT 1 ", "SELECT 1 FOR SHARE"),
        ('\'{"kind":"x"}\'', '\'{"kind":"x"}\'', '\'{"kind":"x"}\''),
    ],
)
def test_macros_and_parameters(source: str, sqlite: str, postgres: str) -> None:
    sql = Sql(source)
    assert sql.text("sqlite") == sqlite
    assert sql.text("postgresql") == postgres
    assert sql.text("sqlite") is sql.text("sqlite")


def test_an_unknown_macro_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"unknown macro \{nwo\}"):
        Sql("SELECT {nwo}").text("sqlite")


def test_rows_unfold_as_typed_columns(engine: Engine) -> None:
    sql = Sql("SELECT r.id, r.name, r.n FROM {rows:r | id bigint, name text, n integer} ORDER BY 1")
    other = Sql("SELECT q.queue FROM {rows:q = queues | queue text}")
    values = [{"id": 2**62, "name": "%s :x {y} '\" é", "n": None}, {"id": -1, "name": "", "n": 3}]
    with read(engine) as tx:
        found = [tuple(row) for row in tx.all(sql, rows=Tx.rows(values))]
        assert found == [(-1, "", 3), (2**62, "%s :x {y} '\" é", None)]
        assert tx.all(sql, rows=Tx.rows([])) == []
        assert tx.first(sql, rows=Tx.rows([])) is None
        assert tx.scalar(sql, rows=Tx.rows([])) is None
        assert tx.scalar(other, queues=Tx.rows([{"queue": "q"}])) == "q"


def test_the_clock_of_the_database_is_in_microseconds(engine: Engine) -> None:
    with read(engine) as tx:
        assert abs(int(tx.scalar(Sql("SELECT {now}"))) - now_us()) < 60 * SECOND


class Injected(DBAPIError):
    """What SQLAlchemy raises, with a driver's error of our choice."""

    def __init__(self, original: BaseException, *, gone: bool = False) -> None:
        super().__init__("statement", None, original, connection_invalidated=gone)


class Pg(Exception):
    """A psycopg error with its state."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


_LOCKED = sqlite3.OperationalError("database is locked")


@pytest.mark.parametrize("original", [Pg("40001"), Pg("40P01"), Pg("55P03"), _LOCKED])
@pytest.mark.parametrize("times", [1, 4])
def test_a_passing_conflict_takes_the_whole_step_again(
    engine: Engine, original: BaseException, times: int
) -> None:
    seen: list[int] = []

    def step(tx: Tx) -> str:
        tx.run(Sql("INSERT INTO id_block (name, next) VALUES ('x', :n)"), n=len(seen))
        seen.append(1)
        if len(seen) <= times:
            raise Injected(original)
        return "done"

    assert transact(engine, step) == "done"
    with read(engine) as tx:
        assert [row.next for row in tx.all(Sql("SELECT next FROM id_block"))] == [times]


def test_it_gives_up_after_so_many_attempts(engine: Engine) -> None:
    calls: list[int] = []

    def step(_tx: Tx) -> None:
        calls.append(1)
        raise Injected(Pg("40001"))

    with pytest.raises(Injected):
        transact(engine, step, attempts=3)
    assert len(calls) == 3


def test_any_other_error_is_raised_at_once_and_undone(engine: Engine) -> None:
    calls: list[int] = []

    def step(tx: Tx) -> None:
        calls.append(1)
        for _ in range(2):
            tx.run(Sql("INSERT INTO id_block (name, next) VALUES ('x', 1)"))

    with pytest.raises(IntegrityError):
        transact(engine, step)
    assert len(calls) == 1
    with read(engine) as tx:
        assert tx.all(Sql("SELECT * FROM id_block")) == []


@pytest.mark.parametrize(
    ("error", "transient", "disconnect"),
    [
        (Injected(Pg("40001")), True, False),
        (Injected(Pg("23505")), False, False),
        (Injected(Pg("57P01"), gone=True), False, True),
        (OperationalError("s", None, Pg("57P03")), False, True),
        (OperationalError("s", None, Pg(None)), False, True),
        (OperationalError("s", None, Pg("42601")), False, False),
        (Injected(_LOCKED), True, False),
        (Injected(sqlite3.OperationalError("no such table: x")), False, False),
    ],
)
def test_what_kind_of_error_it_is(error: DBAPIError, transient: bool, disconnect: bool) -> None:
    assert is_transient(error) is transient
    assert is_disconnect(error) is disconnect
    assert is_passing(error) is (transient or disconnect)
    assert not is_disconnect(ValueError())


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "postgresql+nodriver://x/y"])
def test_a_url_that_cannot_be_used_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_reader_does_not_wait_for_sqlites_writer(engine: Engine, database_url: str) -> None:
    other = open_engine(database_url)

    def write(tx: Tx) -> Any:
        tx.run(Sql("INSERT INTO id_block (name, next) VALUES ('x', 1)"))
        with read(other) as reader:
            return reader.all(Sql("SELECT * FROM id_block"))

    try:
        assert transact(engine, write) == []
    finally:
        other.dispose()


def _hold_the_writer(path: Path, held: threading.Event, let_go: threading.Event) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        held.set()
        let_go.wait()
        other.execute("COMMIT")


@pytest.mark.parametrize("eager_s", [0.0, 30.0])
def test_a_writer_waits_for_sqlites_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager_s: float
) -> None:
    """Whether it looks often or lets SQLite wait, and the connection waits as before after it."""
    monkeypatch.setattr(engine_module, "_EAGER_S", eager_s)
    path = tmp_path / "roost.db"
    engine = open_engine(f"sqlite:///{path}")
    held, let_go = threading.Event(), threading.Event()
    transact(engine, lambda tx: tx.run(Sql("CREATE TABLE t (a INTEGER)")))
    holder = threading.Thread(target=_hold_the_writer, args=(path, held, let_go))
    holder.start()
    held.wait()
    waiter = threading.Thread(
        target=transact, args=(engine, lambda tx: tx.run(Sql("INSERT INTO t VALUES (1)")))
    )
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive(), "it must not write beside another"
    let_go.set()
    waiter.join(30)
    holder.join(30)
    with read(engine) as tx:
        assert tx.scalar(Sql("SELECT count(*) FROM t")) == 1
        assert tx.scalar(Sql("PRAGMA busy_timeout")) == 30_000
    engine.dispose()


def test_an_error_that_is_no_busy_writer_is_raised_at_once(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'roost.db'}")
    with engine.connect() as connection, connection.begin():
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
            engine_module._begin_writing(driver)
        assert driver.execute("PRAGMA busy_timeout").fetchone() == (30_000,)
    engine.dispose()
