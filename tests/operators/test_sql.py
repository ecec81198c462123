"""SqlHook, SQLExecuteQueryOperator and SqlSensor on SQLite and PostgreSQL (S28, S46)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from roost.exceptions import RoostException
from roost.hooks import SqlHook
from roost.hooks.sqltext import statements
from roost.operators import PostgresOperator, SQLExecuteQueryOperator, SqliteOperator
from roost.sensors import SqlSensor
from tests.dag.case import a_dag, load_text, raw, run

MARK = {"sqlite": "?", "postgresql": "%s"}


@pytest.fixture
def kind(database_kind: str, tmp_path: Path, request: Any, monkeypatch: Any) -> str:
    """The connection ``sql_default`` is a database of this kind."""
    if database_kind == "sqlite":
        monkeypatch.setenv("ROOST_CONN_SQL_DEFAULT", f"sqlite:///{tmp_path}/x.db")
    else:
        url = make_url(request.getfixturevalue("postgresql_url"))
        text = url.set(drivername="postgres").render_as_string(hide_password=False)
        monkeypatch.setenv("ROOST_CONN_SQL_DEFAULT", text)
    SqlHook().run(["DROP TABLE IF EXISTS fruit", "CREATE TABLE fruit (name text, n integer)"])
    return database_kind


def query(sql: Any, **arguments: Any) -> Any:
    outcome, values = run(SQLExecuteQueryOperator(task_id="q", sql=sql, dag=a_dag(), **arguments))
    assert outcome.error is None, outcome.error
    return values.get("return_value")


def test_s46_rows_are_the_return_value(kind: str) -> None:
    insert = f"INSERT INTO fruit VALUES ({MARK[kind]}, {MARK[kind]})"  # noqa: S608 - our marks
    assert query(insert, parameters=["{{ ds }}", 3]) is None
    assert query("SELECT name, n FROM fruit WHERE n = 3") == [("2026-01-31", 3)]
    named = {"sqlite": ":n", "postgresql": "%(n)s"}[kind]
    select = f"SELECT name FROM fruit WHERE n = {named}"  # noqa: S608 - our marks
    assert query(select, parameters={"n": 3}) == [("2026-01-31",)]
    assert query("SELECT 1 WHERE 'a%b' LIKE '%b'") == [(1,)]  # no parameters: no placeholders
    assert query("SELECT n FROM fruit", handler=lambda cursor: cursor.fetchone()[0] * 2) == 6
    assert query("SELECT n FROM fruit", handler=None) is None


def test_several_statements_are_one_transaction(kind: str) -> None:
    text = "INSERT INTO fruit VALUES ('a;b', 1); SELECT n FROM fruit; SELECT 2 -- ; the end"
    assert query(text, split_statements=True) == [(2,)]
    assert query(text, split_statements=True, return_last=False) == [None, [(1,), (1,)], [(2,)]]
    failing = SQLExecuteQueryOperator(
        task_id="f", sql=["INSERT INTO fruit VALUES ('c', 9)", "SELECT nonsense"], dag=a_dag()
    )
    error = run(failing)[0].error or ""
    assert "connection 'sql_default': " in error
    assert "in: SELECT nonsense" in error
    assert query("SELECT count(*) FROM fruit WHERE n = 9") == [(0,)]
    failing.autocommit = True
    assert run(failing)[0].kind == "failed"
    assert query("SELECT count(*) FROM fruit WHERE n = 9") == [(1,)]


def test_hook_gives_records(kind: str) -> None:
    assert kind
    hook = SqlHook()
    hook.run("INSERT INTO fruit VALUES ('a', 1), ('b', 2)")
    assert hook.get_records("SELECT n FROM fruit ORDER BY n") == [(1,), (2,)]
    assert hook.get_first("SELECT name FROM fruit ORDER BY n") == ("a",)
    assert hook.get_first("SELECT name FROM fruit WHERE n > 5") is None
    with pytest.raises(RoostException, match="no SQL to run"):
        hook.run("  ")


def test_sensor_waits_for_a_cell(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind
    looks: list[float] = []

    def nap(seconds: float) -> None:
        looks.append(seconds)
        SqlHook().run("INSERT INTO fruit SELECT 'x', count(*) FROM fruit")

    monkeypatch.setattr("roost.sensors.base.time.sleep", nap)

    def sensor(**arguments: Any) -> Any:
        fields = {"sql": "SELECT max(n) FROM fruit", "mode": "poke", **arguments}
        return run(SqlSensor(task_id="s", conn_id="sql_default", dag=a_dag(), **fields))[0]

    assert sensor().kind == "success"  # NULL, then 0, then 1
    assert len(looks) == 2
    assert sensor(success=lambda cell: cell > 3).kind == "success"
    assert "failure() takes for one" in (sensor(failure=lambda cell: cell > 3).error or "")
    empty = "SELECT n FROM fruit WHERE n > 99"
    assert "fail_on_empty" in (sensor(sql=empty, fail_on_empty=True).error or "")
    assert sensor(success_values=[4, 5]).kind == "success"
    assert "among failure_values" in (sensor(failure_values=[4]).error or "")
    waiting = sensor(sql=empty, mode=None, success=bool)
    assert waiting.defer.lane == "timer"  # only a process can call success()
    waiting = sensor(sql=empty, mode=None)
    assert (waiting.defer.lane, waiting.defer.next_method) == ("poll", "execute_complete")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"found": 3, "judgement": "success"}, None),
        ({"found": "bad", "judgement": "failed"}, "the query gave 'bad', which is among"),
    ],
)
def test_a_resumed_sensor_judges_its_event(event: Any, error: str | None) -> None:
    sensor = SqlSensor(task_id="s", conn_id="x", sql="SELECT 1", dag=a_dag())
    outcome, values = run(sensor, next_method="execute_complete", next_kwargs=raw({"event": event}))
    assert not values
    assert (outcome.error is None) if error is None else error in (outcome.error or "")


def test_a_template_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_SQLITE_DEFAULT", f"sqlite:///{tmp_path}/x.db")
    (tmp_path / "day.sql").write_text("SELECT '{{ ds }}'")
    loaded = load_text(
        tmp_path,
        "from datetime import datetime\nfrom roost.dag import DAG\n"
        "from roost.operators import SqliteOperator\n"
        "with DAG('d', start_date=datetime(2026, 1, 1)):\n"
        "    SqliteOperator(task_id='q', sql='day.sql')\n",
    )
    task = loaded.dags["d"].get_task("q")
    assert run(task)[1] == {"return_value": [("2026-01-31",)]}


def test_s50_older_names_have_their_own_connections() -> None:
    dag = a_dag()
    assert SqliteOperator(task_id="a", sql="x", dag=dag).conn_id == "sqlite_default"
    assert PostgresOperator(task_id="b", sql="x", dag=dag).conn_id == "postgres_default"
    mine = PostgresOperator(task_id="c", sql="x", postgres_conn_id="mine", dag=dag)
    assert mine.conn_id == "mine"


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("postgres://me:p%40ss@h:5/db", "postgresql+psycopg://me:p%40ss@h:5/db"),
        ("postgres://h/db?sslmode=require", "postgresql+psycopg://h/db?sslmode=require"),
        ("mysql://h/db?driver=mysqldb", "mysql+mysqldb://h/db"),
        ("sqlite:///tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite://%2Ftmp%2Fx.db", "sqlite:////tmp/x.db"),
        ("sqlite://", "sqlite://"),
        ('{"conn_type":"any","extra":{"sqlalchemy_url":"duckdb:///x"}}', "duckdb:///x"),
    ],
)
def test_s46_any_sqlalchemy_url(uri: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_X", uri)
    assert SqlHook("x").get_uri() == url


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nonsense://h/db", "no driver for nonsense"),
        ('{"host": "h"}', "has no type"),
        ('{"extra": {"sqlalchemy_url": "x"}}', "is no URL"),
    ],
)
def test_what_is_wrong_with_a_connection(
    uri: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_CONN_X", uri)
    with pytest.raises(RoostException, match=message):
        SqlHook("x").run("SELECT 1")


def test_another_database_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_CONN_X", "postgres://h/db")
    assert SqlHook("x", database="other").get_uri() == "postgresql+psycopg://h/other"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a; b ;", ["a", "b"]),
        ("select ';'; select \";\", `;`", ["select ';'", 'select ";", `;`']),
        ("a -- ; not here\n; /* ; \n */ b", ["a -- ; not here", "/* ; \n */ b"]),
        ("do $$ x; y $$; do $t$ $$; $t$", ["do $$ x; y $$", "do $t$ $$; $t$"]),
        ("-- nothing\n; /* here */", []),
        ("select 'it''s; fine'", ["select 'it''s; fine'"]),
        ("", []),
    ],
)
def test_taking_sql_apart(text: str, parts: list[str]) -> None:
    assert statements(text) == parts
