"""The database: engines, transactions and named statements for both dialects.

A statement is a :class:`Sql` constant written once, with a few macros for what the dialects spell
differently. Many rows travel as ONE parameter of JSON, so a statement's text never depends on how
many rows it moves: the server plans it once, and batches of any size cost one round trip.

Every transaction is a synchronous function run by :func:`transact`. SQLite transactions begin
IMMEDIATE (a reader that turns into a writer would fail), PostgreSQL's are READ COMMITTED with
guarded updates.
"""

from __future__ import annotations

import functools
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, QueuePool

from roost.exceptions import ConfigError
from roost.support.clock import now_us

__all__ = [
    "Sql",
    "Tx",
    "driver_arguments",
    "is_disconnect",
    "is_passing",
    "is_transient",
    "open_engine",
    "read",
    "single",
    "transact",
]

T = TypeVar("T")
_PARAM = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_MACRO = re.compile(r"\{(\w+)(?::([^}]*))?\}")
_POSTGRES_NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
# Rows come as one JSON parameter, of which PostgreSQL assumes that it holds 100; with that it would
# read all of a middling table to move one row. Every statement of ours goes by an index.
_PLANNER_SETTINGS = (
    "enable_seqscan=off",
    "enable_bitmapscan=off",  # it visits every dead row; an index scan remembers them
    "enable_hashjoin=off",
    "enable_mergejoin=off",
    "jit=off",
    "timezone=UTC",
)
_TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock wait


class Sql:
    """One named statement, rendered for the dialect that runs it.

    Macros: ``{now}`` the database's clock in microseconds; ``{rows:r | id bigint, note text}`` the
    JSON parameter ``:rows`` as a table ``r``; ``{skip_locked}`` and ``{for_update}`` row locks
    where there are any (SQLite's writer is alone), ``{for_update:t}`` of table ``t`` only;
    ``{true}`` and ``{false}``.
    """

    __slots__ = ("_rendered", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._rendered: dict[str, str] = {}

    def text(self, dialect: str) -> str:
        """The statement in the dialect's own words and parameter style."""
        try:
            return self._rendered[dialect]
        except KeyError:
            rendered = _MACRO.sub(functools.partial(_expand, dialect), self.source)
            if dialect == "postgresql":
                rendered = _PARAM.sub(r"%(\1)s", rendered.replace("%", "%%"))
            return self._rendered.setdefault(dialect, rendered)


def _expand(dialect: str, match: re.Match[str]) -> str:
    name, argument = match.group(1), match.group(2)
    postgres = dialect == "postgresql"
    match name:
        case "now":
            return _POSTGRES_NOW if postgres else "roost_now()"
        case "skip_locked":
            return "FOR UPDATE SKIP LOCKED" if postgres else ""
        case "for_update":
            of = f" OF {argument}" if argument else ""
            return f"FOR UPDATE{of}" if postgres else ""
        case "for_share":
            return "FOR SHARE" if postgres else ""
        case "true":
            return "TRUE" if postgres else "1"
        case "false":
            return "FALSE" if postgres else "0"
        case "json_list":
            kind = "json_agg" if postgres else "json_group_array"
            return f"CAST({kind}({argument}) AS text)"
        case "rows":
            return _rows_table(postgres, argument)
        case _:
            raise ValueError(f"unknown macro {{{name}}} in a statement")


def _rows_table(postgres: bool, argument: str) -> str:
    """``r | id bigint, note text``: the JSON parameter ``:rows`` as a table named ``r``.

    A name other than ``rows`` for the parameter is written ``r = other | …``.
    """
    head, _, columns = argument.partition("|")
    alias, _, parameter = (part.strip() for part in head.partition("="))
    parameter = parameter or "rows"
    if postgres:
        return f"json_to_recordset(CAST(:{parameter} AS json)) AS {alias}({columns.strip()})"
    fields = ", ".join(
        f"json_extract(value, '$.{name}') AS {name}"
        for name in (column.split()[0] for column in columns.split(","))
    )
    return f"(SELECT {fields} FROM json_each(:{parameter})) AS {alias}"


class Tx:
    """One transaction: runs named statements. Passed to every function that touches SQL."""

    __slots__ = ("connection", "dialect")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name

    def all(self, sql: Sql, **params: Any) -> Sequence[Row[Any]]:
        """Every row of a query or of a RETURNING clause."""
        return self.connection.exec_driver_sql(sql.text(self.dialect), params).fetchall()

    def first(self, sql: Sql, **params: Any) -> Row[Any] | None:
        """The first row, or None."""
        return self.connection.exec_driver_sql(sql.text(self.dialect), params).first()

    def scalar(self, sql: Sql, **params: Any) -> Any:
        """The first column of the first row, or None."""
        row = self.first(sql, **params)
        return None if row is None else row[0]

    def run(self, sql: Sql, **params: Any) -> int:
        """Run a statement that returns no rows; gives how many rows it touched."""
        return self.connection.exec_driver_sql(sql.text(self.dialect), params).rowcount

    @staticmethod
    def rows(rows: Sequence[Mapping[str, Any]]) -> str:
        """Rows as the JSON parameter that a ``{rows:…}`` macro unfolds."""
        return msgspec.json.encode(rows).decode()


def open_engine(
    url: str, *, sqlite_synchronous: str = "FULL", pool_size: int = 4, statement_timeout_s: int = 30
) -> Engine:
    """An engine for ``sqlite:///path`` or ``postgresql://…`` (psycopg 3).

    Args:
        url: SQLAlchemy URL; ``postgresql://`` means psycopg 3.
        sqlite_synchronous: SQLite's ``PRAGMA synchronous``; FULL survives a power cut.
        pool_size: connections kept open.
        statement_timeout_s: PostgreSQL gives up on a statement after this many seconds.

    Raises:
        ConfigError: the URL cannot be read, or names a database that Roost does not know.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
    except Exception as error:
        raise ConfigError(f"database.url is not a database URL: {error}") from None
    if backend == "sqlite":
        return _open_sqlite(str(parsed), sqlite_synchronous)
    if backend != "postgresql":
        raise ConfigError(
            f"database.url names {backend!r}; Roost runs on sqlite:///… or postgresql://…"
        )
    options = " ".join(
        f"-c {setting}"
        for setting in (f"statement_timeout={statement_timeout_s * 1000}", *_PLANNER_SETTINGS)
    )
    try:
        return create_engine(
            parsed,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_pre_ping=False,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": 5, "options": options, "application_name": "roost"},
        )
    except (ImportError, NoSuchModuleError):
        raise ConfigError(
            "PostgreSQL needs the driver psycopg: pip install 'roost[postgres]'"
        ) from None


def driver_arguments(engine: Engine) -> dict[str, Any] | None:
    """What ``psycopg.connect`` takes for a connection beside the pool; None on SQLite."""
    if engine.dialect.name != "postgresql":
        return None
    arguments: dict[str, Any] = dict(engine.dialect.create_connect_args(engine.url)[1])
    del arguments["context"]  # SQLAlchemy's own types
    return arguments | {"application_name": "roost bell"}


def _open_sqlite(url: str, synchronous: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool if ":memory:" in url else QueuePool,
        connect_args={"timeout": 30, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.create_function("roost_now", 0, now_us)
        connection.execute("PRAGMA busy_timeout=30000")
        _enter_wal(connection)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("roost_reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Change a new file to WAL. The busy time-out does not cover that change, so wait here."""
    give_up = time.monotonic() + 30
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


@contextmanager
def read(engine: Engine) -> Iterator[Tx]:
    """A look at the database that never waits for SQLite's writer.

    On PostgreSQL each statement stands alone, as READ COMMITTED would have it anyway, and saves
    the two around it.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield Tx(connection)
        return
    with engine.connect() as connection:
        connection = connection.execution_options(roost_reading=True)
        with connection.begin():
            yield Tx(connection)


def single(engine: Engine, step: Callable[[Tx], T]) -> T:
    """Run a step of ONE writing statement, which is a transaction by itself."""
    if engine.dialect.name == "postgresql":
        with read(engine) as tx:
            return step(tx)
    return transact(engine, step)


def transact(engine: Engine, step: Callable[[Tx], T], *, attempts: int = 5) -> T:
    """Run ``step`` in one transaction; the whole of it again after a passing conflict.

    A serialization failure, deadlock or lock time-out aborts the transaction as a whole, so the
    step sees nothing of its former attempt. Everything else is raised as it is.
    """
    for attempt in range(1, attempts + 1):
        try:
            with engine.begin() as connection:
                return step(Tx(connection))
        except DBAPIError as error:
            if attempt == attempts or not is_transient(error):
                raise
    raise AssertionError("unreachable")


def is_transient(error: DBAPIError) -> bool:
    """True when the same transaction may well succeed if it is run again."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in _TRANSIENT_STATES
    return isinstance(error.orig, sqlite3.OperationalError) and "locked" in str(error.orig)


def is_disconnect(error: Exception) -> bool:
    """True when the database is away: the caller waits and tries again, it does not exit."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, OperationalError):
        return state is None or state[:2] in ("08", "53", "57")
    return False


def is_passing(error: Exception) -> bool:
    """True when the same step may succeed later without anybody's help but the database's."""
    if isinstance(error, PoolTimeout) or is_disconnect(error):
        return True
    return isinstance(error, DBAPIError) and is_transient(error)
