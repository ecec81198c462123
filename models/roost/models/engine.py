"""The database: engines and transactions for both dialects.

Every transaction is a synchronous function run by :func:`transact`. SQLite transactions begin
IMMEDIATE (a reader that turns into a writer would fail), PostgreSQL's are READ COMMITTED with
guarded updates.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, QueuePool

from roost.exceptions import ConfigError
from roost.models.sql import Sql, Tx
from roost.support.clock import now_us

__all__ = [
    "CONNECT_TIMEOUT_S",
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
CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_S = 30  # PostgreSQL gives up on a statement then
# SQLite looks whether its one writer is done after 1, 2, 5 ms and so on up to every 100 ms, and who
# comes in between is first: among busy writers one waits many times longer than any of them writes.
_WAIT_LONG = "PRAGMA busy_timeout=30000"
_WAIT_SHORTLY = "PRAGMA busy_timeout=2"  # looks every millisecond
_EAGER_S = 1.0
_TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock wait


def open_engine(url: str, *, sqlite_synchronous: str = "FULL", pool_size: int = 4) -> Engine:
    """An engine for ``sqlite:///path`` or ``postgresql://…`` (psycopg 3).

    Args:
        url: SQLAlchemy URL; ``postgresql://`` means psycopg 3.
        sqlite_synchronous: SQLite's ``PRAGMA synchronous``; FULL survives a power cut.
        pool_size: connections kept open.

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
        for setting in (f"statement_timeout={_STATEMENT_TIMEOUT_S * 1000}", *_PLANNER_SETTINGS)
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
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": options,
                "application_name": "roost",
            },
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
        connection.execute(_WAIT_LONG)
        _enter_wal(connection)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("roost_reading", False)
        # To the driver itself: by SQLAlchemy it would take longer than many a statement inside. A
        # database that is busy for too long raises here as anywhere.
        try:
            driver = cast(sqlite3.Connection, connection.connection.driver_connection)
            if reading:
                driver.execute("BEGIN")
            else:
                _begin_writing(driver)
        except sqlite3.Error as error:
            raise OperationalError("BEGIN", {}, error) from error

    return engine


def _begin_writing(connection: sqlite3.Connection) -> None:
    """Become SQLite's writer: one look a millisecond at first, for a writer is done in a few.

    Raises:
        sqlite3.OperationalError: another one writes for longer than SQLite's time-out.
    """
    give_up = time.monotonic() + _EAGER_S
    connection.execute(_WAIT_SHORTLY)
    try:
        while time.monotonic() < give_up:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            else:
                return
    finally:
        connection.execute(_WAIT_LONG)
    connection.execute("BEGIN IMMEDIATE")


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
