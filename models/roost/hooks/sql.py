"""SqlHook: any database that SQLAlchemy knows, by a connection (S45)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from roost.exceptions import RoostException
from roost.hooks.base import BaseHook
from roost.hooks.sqltext import statements

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from roost.dag.connection import Connection

__all__ = [
    "Handler",
    "Parameters",
    "SqlHook",
    "database_url",
    "engine_of",
    "fetch_all",
    "fetch_one",
    "first_line",
]

Parameters = Mapping[str, Any] | Sequence[Any]
Handler = Callable[[Any], Any]

# SQLAlchemy's name and driver for a connection's type, where they differ.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mssql": "mssql+pyodbc",
    "oracle": "oracle+oracledb",
}


def fetch_all(cursor: Any) -> list[tuple[Any, ...]] | None:
    """Every row, or None for a statement that gives none."""
    return None if cursor.description is None else [tuple(row) for row in cursor.fetchall()]


def fetch_one(cursor: Any) -> tuple[Any, ...] | None:
    """The first row, or None."""
    row = None if cursor.description is None else cursor.fetchone()
    return None if row is None else tuple(row)


class SqlHook(BaseHook):
    """Runs SQL in the database of a connection.

    The connection's type names the dialect, e.g. ``postgres`` or ``sqlite``; ``driver`` in its
    extra another driver, ``sqlalchemy_url`` there replaces all of it, everything else in it goes
    into the URL's query. The path of an SQLite file is the host, or after ``sqlite:///``; it is
    absolute.

    Args:
        conn_id: the connection.
        database: another database of the same server.
    """

    default_conn_id = "sql_default"

    def __init__(self, conn_id: str | None = None, *, database: str | None = None) -> None:
        self.conn_id = conn_id or self.default_conn_id
        self.database = database

    def sqlalchemy_url(self) -> URL:
        """Where the database is.

        Raises:
            NotFound: there is no such connection.
            RoostException: it names no database.
        """
        return database_url(self.get_connection(self.conn_id), self.database)

    def get_uri(self) -> str:
        """The same as text, with the password in it."""
        return self.sqlalchemy_url().render_as_string(hide_password=False)

    def get_engine(self) -> Engine:
        """A SQLAlchemy engine that keeps no connection open.

        Raises:
            RoostException: there is no such dialect, or its driver is not installed.
        """
        return engine_of(self.conn_id, self.sqlalchemy_url())

    def run(
        self,
        sql: str | Iterable[str],
        autocommit: bool = False,
        parameters: Parameters | None = None,
        handler: Handler | None = None,
        split_statements: bool = False,
        return_last: bool = True,
    ) -> Any:
        """Run statements one after the other, in one transaction unless ``autocommit``.

        Args:
            sql: one statement, or several.
            autocommit: each statement stands by itself.
            parameters: for every statement, in the style of the driver: ``?`` or ``:name`` for
                SQLite, ``%s`` or ``%(name)s`` for psycopg.
            handler: called with the driver's cursor after each statement; its results are
                returned.
            split_statements: take a text apart at its semicolons.
            return_last: the result of the last statement; False: a list of all, unless ``sql``
                is a single statement that was not split.

        Raises:
            RoostException: the database refuses it; names the statement's beginning.
        """
        texts = _texts(sql, split_statements)
        if not texts:
            raise RoostException("there is no SQL to run")
        results = []
        engine = self.get_engine()
        from sqlalchemy.exc import SQLAlchemyError  # few tasks pay for it

        try:
            with engine.connect() as connection:
                if autocommit:
                    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                raw = connection.connection
                cursor = raw.cursor()
                for text in texts:
                    self._execute(cursor, text, parameters)
                    results.append(None if handler is None else handler(cursor))
                cursor.close()
                if not autocommit:
                    raw.commit()
        except SQLAlchemyError as error:
            raise RoostException(f"connection {self.conn_id!r}: {first_line(error)}") from error
        finally:
            engine.dispose()
        if handler is None:
            return None
        single = isinstance(sql, str) and not split_statements
        return results[-1] if return_last or single else results

    def get_records(
        self, sql: str | Iterable[str], parameters: Parameters | None = None
    ) -> list[tuple[Any, ...]]:
        """Every row."""
        return self.run(sql, parameters=parameters, handler=fetch_all) or []

    def get_first(
        self, sql: str | Iterable[str], parameters: Parameters | None = None
    ) -> tuple[Any, ...] | None:
        """The first row, or None."""
        row: tuple[Any, ...] | None = self.run(sql, parameters=parameters, handler=fetch_one)
        return row

    def _execute(self, cursor: Any, text: str, parameters: Parameters | None) -> None:
        self.log.info("running: %s", text)
        try:
            if parameters is None:
                cursor.execute(text)
            else:
                cursor.execute(
                    text, parameters if isinstance(parameters, Mapping) else tuple(parameters)
                )
        except Exception as error:  # each driver has its own
            shown = " ".join(text[:80].split())
            raise RoostException(
                f"connection {self.conn_id!r}: {first_line(error)} in: {shown}"
            ) from error


def database_url(connection: Connection, database: str | None = None) -> URL:
    """Where the database of a connection is, or another one of its server.

    Raises:
        RoostException: the connection names none.
    """
    extra = dict(connection.extra_dejson)
    given = extra.pop("sqlalchemy_url", None)
    from sqlalchemy import URL, make_url  # few tasks pay for it
    from sqlalchemy.exc import ArgumentError

    if given is not None:
        try:
            return make_url(str(given))
        except ArgumentError:
            raise RoostException(
                f"connection {connection.conn_id!r}: sqlalchemy_url in its extra is no URL"
            ) from None
    kind = connection.conn_type.lower()
    if not kind:
        raise RoostException(
            f"connection {connection.conn_id!r} has no type; give e.g. postgres or sqlite"
        )
    if kind == "sqlite":
        return URL.create("sqlite", database=database or _sqlite_path(connection))
    driver = extra.pop("driver", None)
    name = _DRIVERS.get(kind, kind)
    return URL.create(
        f"{name.partition('+')[0]}+{driver}" if driver else name,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=database or connection.schema,
        query={key: str(value) for key, value in extra.items()},
    )


def engine_of(conn_id: str, url: URL) -> Engine:
    """A SQLAlchemy engine that keeps no connection open.

    Raises:
        RoostException: there is no such dialect, or its driver is not installed.
    """
    from sqlalchemy import create_engine  # few tasks pay for it
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        return create_engine(url, poolclass=NullPool)
    except (ImportError, NoSuchModuleError) as error:
        raise RoostException(
            f"connection {conn_id!r}: no driver for {url.drivername}: {error}"
        ) from None


def _sqlite_path(connection: Connection) -> str | None:
    """Of the file; None: in memory."""
    path = connection.host or connection.schema
    if path is None or path == ":memory:":
        return None
    return path if path.startswith("/") else f"/{path}"


def _texts(sql: str | Iterable[str], split: bool) -> list[str]:
    texts = [sql] if isinstance(sql, str) else list(sql)
    if split:
        texts = [statement for text in texts for statement in statements(text)]
    return [text for text in texts if text.strip()]


def first_line(error: BaseException) -> str:
    """What a database says, without the hints below it."""
    return str(error).strip().partition("\n")[0] or repr(error)
