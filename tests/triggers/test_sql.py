"""SqlTrigger on SQLite files and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from roost.exceptions import RoostException
from roost.hooks import SqlHook
from roost.support import typedjson
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.triggerer.case import Case
from roost.triggerer.pooled import Pool
from roost.triggers import SqlTrigger
from roost.triggers.judging import judge
from roost.triggers.sql_desk import Question, _Desk, ask_all
from tests.triggers.case import fired, remade, until, waiting

MARK = {"sqlite": "?", "postgresql": "%s"}


@pytest.fixture
def kind(
    database_kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The connection ``db`` is a database of this kind."""
    if database_kind == "sqlite":
        monkeypatch.setenv("ROOST_CONN_DB", f"sqlite:///{tmp_path}/x.db")
    else:
        url = sa.make_url(request.getfixturevalue("postgresql_url"))
        text = url.set(drivername="postgres").render_as_string(hide_password=False)
        monkeypatch.setenv("ROOST_CONN_DB", text)
    SqlHook("db").run(["DROP TABLE IF EXISTS load", "CREATE TABLE load (day text, n integer)"])
    return database_kind


def trigger(sql: str = "SELECT max(n) FROM load", **arguments: Any) -> SqlTrigger:
    return SqlTrigger("db", sql, **{"poll_interval": 0.02, **arguments})


def insert(day: str, n: int) -> Callable[[], Any]:
    """Somebody loads a day."""

    async def cause() -> None:
        statement = f"INSERT INTO load VALUES ('{day}', {n})"  # noqa: S608 - ours
        await asyncio.to_thread(SqlHook("db").run, statement)

    return cause


def test_it_fires_when_the_cell_is_there(kind: str) -> None:
    assert kind
    SqlHook("db").run("INSERT INTO load VALUES ('x', 0)")
    assert fired(trigger(), insert("a", 7)) == {"found": 7, "judgement": "success"}


def test_a_row_of_its_parameters(kind: str) -> None:
    """Parameters are in the style of the driver; any_row does not look at the cell."""
    sql = f"SELECT n FROM load WHERE day = {MARK[kind]}"  # noqa: S608 - our marks
    found = fired(trigger(sql, parameters=["b"], any_row=True), insert("b", 0))
    assert found == {"found": 0, "judgement": "success"}
    named = {"sqlite": ":day", "postgresql": "%(day)s"}[kind]
    sql = f"SELECT n FROM load WHERE day = {named}"  # noqa: S608 - our marks
    assert fired(trigger(sql, parameters={"day": "b"}, any_row=True))["found"] == 0


def test_values_to_wait_for_and_to_give_up_at(kind: str) -> None:
    assert kind
    SqlHook("db").run("INSERT INTO load VALUES ('x', 1)")
    wanted: dict[str, Any] = {"success_values": [2, 3], "failure_values": [9]}
    assert fired(trigger(**wanted), insert("a", 3))["found"] == 3
    SqlHook("db").run("DELETE FROM load")
    assert fired(trigger(**wanted), insert("a", 9)) == {"found": 9, "judgement": "failed"}


def test_what_is_no_passing_trouble_fails_at_once(kind: str) -> None:
    with pytest.raises(RoostException, match="gave no row, and fail_on_empty is set"):
        fired(trigger("SELECT n FROM load WHERE n = 99", fail_on_empty=True))
    if kind == "postgresql":  # SQLite calls everything an operational error
        with pytest.raises(
            RoostException, match=r"connection 'db': relation .* in: SELECT nothing"
        ):
            fired(trigger("SELECT nothing FROM nowhere"))
    with pytest.raises(OSError if kind == "sqlite" else RoostException, match="nowhere"):
        fired(trigger("SELECT 1 FROM nowhere"))


def test_a_type_of_the_drivers_own_becomes_text(kind: str) -> None:
    if kind == "postgresql":
        found = fired(trigger("SELECT '10000000-0000-0000-0000-000000000000'::uuid"))
        assert found["found"] == "10000000-0000-0000-0000-000000000000"
    assert fired(trigger("SELECT 1.5"))["judgement"] == "success"


class Hall:
    """Triggers in a pool, as in a runner."""

    def __init__(self) -> None:
        self.reports: dict[int, TriggerReport] = {}
        self.pool = Pool(self._report, lambda case: None)
        self.cases: list[Case] = []

    def _report(self, report: TriggerReport) -> None:
        self.reports[report.trigger_id] = report

    def add(self, wanted: SqlTrigger) -> None:
        number = len(self.cases)
        spec = TriggerSpec(
            number, 1, "t", "t", msgspec.Raw(b"{}"), "h", "f", "d", "r", f"t{number}", -1, 1
        )
        made = remade(wanted)
        assert isinstance(made, SqlTrigger)
        self.cases.append(Case(spec, {}))
        self.pool.take(self.cases[-1], made)

    def drop_all(self) -> None:
        for case in self.cases:
            self.pool.drop(case)


def test_a_thousand_tasks_ask_each_query_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one thread, never the loop's, over one connection."""
    asked: list[tuple[int, str]] = []
    threads: set[int] = set()
    real = _Desk._first_row
    opened: list[object] = []
    connect = _Desk._connect

    def first_row(desk: _Desk, connection: Any, question: Question) -> Any:
        threads.add(threading.get_ident())
        asked.append((len(asked), question.sql))
        return real(desk, connection, question)

    def counted(desk: _Desk) -> Any:
        opened.append(desk)
        return connect(desk)

    monkeypatch.setattr(_Desk, "_first_row", first_row)
    monkeypatch.setattr(_Desk, "_connect", counted)
    mark = MARK[kind]

    async def main() -> None:
        hall = Hall()
        for number in range(1_000):
            sql = f"SELECT n FROM load WHERE day = {mark}"  # noqa: S608 - our marks
            values = [1] if number < 500 else [1, 2]
            hall.add(trigger(sql, parameters=[f"d{number % 5}"], success_values=values))
        await until(lambda: len(asked) >= 25)
        assert len(asked) <= 5 * hall.pool.polls  # for each trigger: 1,000 times
        assert len(threads) == len(opened) == 1
        assert threading.get_ident() not in threads
        await insert("d3", 2)()
        await until(lambda: len(hall.reports) == 100)
        assert set(hall.reports) == set(range(503, 1_000, 5))
        found: Any = typedjson.decode(hall.reports[503].payload)
        assert found == {"found": 2, "judgement": "success"}
        hall.drop_all()

    asyncio.run(main())


def test_a_connection_that_broke_is_made_anew(kind: str, postgresql_url: str) -> None:
    """A server that ends its sessions is a passing trouble: the next poll connects again."""
    if kind == "sqlite":
        return

    async def main() -> None:
        async with waiting(trigger()) as (one,):
            ours = (
                "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT max(n)%' "
                "AND pid <> pg_backend_pid()"
            )
            find = SqlHook("db").get_records
            await until(lambda: find(ours))
            end = f"SELECT pg_terminate_backend(pid) FROM ({ours}) AS o"  # noqa: S608 - ours
            await asyncio.to_thread(SqlHook("db").run, end)
            await insert("a", 5)()
            assert (await one.payload())["found"] == 5

    asyncio.run(main())


def test_a_query_that_hangs_keeps_nobody_from_asking_anew(kind: str) -> None:
    """The poll is given up; another thread asks for the next one."""
    release, hanging = threading.Event(), threading.Event()

    class Hangs(Question):
        __slots__ = ()

    real = _Desk._first_row

    def first_row(desk: _Desk, opened: Any, question: Question) -> Any:
        if isinstance(question, Hangs):
            hanging.set()
            release.wait(30)
        return real(desk, opened, question)

    async def main() -> None:
        hung = asyncio.create_task(ask_all("db", {"q": Hangs("SELECT 1", None)}))
        await until(hanging.is_set)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        assert await ask_all("db", {"q": Question("SELECT 2", None)}) == {"q": (2,)}
        release.set()

    assert kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Desk, "_first_row", first_row)
        asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sql": " "}, "needs a query"),
        ({"poll_interval": 0}, "must be more than 0"),
        ({"success_values": "x"}, "must be a list of values"),
        ({"any_row": True, "fail_on_empty": True}, "goes with neither"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RoostException, match=message):
        trigger(**arguments)


@pytest.mark.parametrize(
    ("found", "wanted", "unwanted", "judgement"),
    [
        (1, None, [], "success"),
        (0, None, [], None),
        ("0", None, [], None),
        (False, None, [], None),
        ([], None, [], None),
        (None, None, [], None),
        (0, [0], [], "success"),
        (None, [None], [], "success"),
        (True, [1], [], None),
        (1, [True], [], None),
        (1.0, [1], [], "success"),
        ("bad", None, ["bad"], "failed"),
        ("bad", ["bad"], ["bad"], "failed"),
        ([1], [[1]], [], "success"),
    ],
)
def test_values_are_judged(
    found: Any, wanted: list[Any] | None, unwanted: list[Any], judgement: str | None
) -> None:
    assert judge(found, wanted, unwanted) == judgement
