"""Named statements for both dialects, and the transaction that runs them.

A statement is a :class:`Sql` constant written once, with a few macros for what the dialects spell
differently. Many rows travel as ONE parameter of JSON, so a statement's text never depends on how
many rows it moves: the server plans it once, and batches of any size cost one round trip.

Statements go to the driver's own cursor: what SQLAlchemy does around one costs a scheduler more
than the database takes to answer. Errors are SQLAlchemy's all the same.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

__all__ = ["Row", "Sql", "Tx"]

_PARAM = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_MACRO = re.compile(r"\{(\w+)(?::([^}]*))?\}")
_POSTGRES_NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"


class Row(tuple[Any, ...]):
    """One row: a tuple whose fields are attributes as well."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def _asdict(self) -> dict[str, Any]:
        """The row by column names."""
        return dict(zip(self._fields, self, strict=True))

    if TYPE_CHECKING:  # a column is what its statement says

        def __getattr__(self, name: str) -> Any: ...


@functools.cache
def _row_type(names: tuple[str, ...]) -> Callable[[Sequence[Any]], Row]:
    """Makes rows of these columns. Cheaper to come by than a NamedTuple, which is compiled."""
    columns: dict[str, Any] = {"__slots__": (), "_fields": names}
    for place, name in enumerate(names):
        columns[name] = property(operator.itemgetter(place))
    return functools.partial(tuple.__new__, type("Row", (Row,), columns))


class Sql:
    """One named statement, rendered for the dialect that runs it.

    Macros: ``{now}`` the database's clock in microseconds; ``{rows:r | id bigint, note text}`` the
    JSON parameter ``:rows`` as a table ``r``; ``{skip_locked}`` and ``{for_update}`` row locks
    where there are any (SQLite's writer is alone), ``{for_update:t}`` of table ``t`` only;
    ``{indexed:name}`` the index that SQLite's planner would sometimes not take, after the table;
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
        case "indexed":
            return "" if postgres else f"INDEXED BY {argument}"
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

    __slots__ = ("_driver", "connection", "dialect")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self._driver: Any = connection.connection.dbapi_connection

    def all(self, sql: Sql, **params: Any) -> Sequence[Row]:
        """Every row of a query or of a RETURNING clause."""
        cursor = self._execute(sql, params)
        try:
            found = cursor.fetchall()
            return list(map(_type_of(cursor), found)) if found else []
        finally:
            cursor.close()

    def each(self, sql: Sql, **params: Any) -> Generator[Row]:
        """The rows of a query one by one: SQLite reads none that is not asked for."""
        cursor = self._execute(sql, params)
        try:
            yield from map(_type_of(cursor), cursor)
        finally:
            cursor.close()

    def first(self, sql: Sql, **params: Any) -> Row | None:
        """The first row, or None."""
        cursor = self._execute(sql, params)
        try:
            row = cursor.fetchone()
            return None if row is None else _type_of(cursor)(row)
        finally:
            cursor.close()

    def scalar(self, sql: Sql, **params: Any) -> Any:
        """The first column of the first row, or None."""
        cursor = self._execute(sql, params)
        try:
            row = cursor.fetchone()
            return None if row is None else row[0]
        finally:
            cursor.close()

    def run(self, sql: Sql, **params: Any) -> int:
        """Run a statement that returns no rows; gives how many rows it touched."""
        cursor = self._execute(sql, params)
        try:
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def _execute(self, sql: Sql, params: dict[str, Any]) -> Any:
        """A cursor with the statement's answer.

        Raises:
            DBAPIError: as SQLAlchemy has it; a broken connection leaves its pool.
        """
        statement = sql.text(self.dialect)
        driver = self.connection.dialect.loaded_dbapi
        cursor = self._driver.cursor()
        try:
            cursor.execute(statement, params)
        except driver.Error as error:
            broken = self.connection.dialect.is_disconnect(error, self._driver, cursor)
            cursor.close()
            if broken:
                self.connection.invalidate(error)
            raise DBAPIError.instance(
                statement,
                params,
                error,
                driver.Error,
                connection_invalidated=broken,
                dialect=self.connection.dialect,
            ) from error
        return cursor

    @staticmethod
    def rows(rows: Sequence[Mapping[str, Any]]) -> str:
        """Rows as the JSON parameter that a ``{rows:…}`` macro unfolds."""
        return msgspec.json.encode(rows).decode()


def _type_of(cursor: Any) -> Callable[[Sequence[Any]], Row]:
    return _row_type(tuple([column[0] for column in cursor.description]))
