"""SQLExecuteQueryOperator: SQL in any database that SQLAlchemy knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from roost.dag.operator import BaseOperator
from roost.hooks.sql import Handler, SqlHook, fetch_all

__all__ = ["MySqlOperator", "PostgresOperator", "SQLExecuteQueryOperator", "SqliteOperator"]


class SQLExecuteQueryOperator(BaseOperator):
    """Run SQL in the database of a connection; its rows are the task's return value.

    Values belong into ``parameters``: what a template puts into the text is read as SQL.

    Args:
        sql: a statement or several, templated; the name of a ``.sql`` file beside the DAG file
            stands for its rendered text.
        conn_id: the connection, templated; its type says which database.
        parameters: for every statement, templated, in the style of the driver: see SqlHook.run.
        autocommit: each statement stands by itself; else all are one transaction.
        handler: called with the driver's cursor after each statement; None: nothing is fetched.
        split_statements: take texts apart at their semicolons.
        return_last: return what the last statement gave; False: a list with that of each.
        database: another database of the same server, templated.
        show_return_value_in_logs: write the result into the log, too.
        **kwargs: see BaseOperator.
    """

    template_fields: Sequence[str] = ("sql", "parameters", "conn_id", "database")
    template_ext = (".sql",)

    def __init__(
        self,
        *,
        sql: str | Iterable[str],
        conn_id: str | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        autocommit: bool = False,
        handler: Handler | None = fetch_all,
        split_statements: bool = False,
        return_last: bool = True,
        database: str | None = None,
        show_return_value_in_logs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql if isinstance(sql, str) else list(sql)
        self.conn_id = conn_id
        self.parameters = parameters
        self.autocommit = autocommit
        self.handler = handler
        self.split_statements = split_statements
        self.return_last = return_last
        self.database = database
        self.show_return_value_in_logs = show_return_value_in_logs

    def execute(self, context: dict[str, Any]) -> Any:
        """Run it.

        Raises:
            RoostException: the database refuses it, or there is no driver for it.
        """
        found = SqlHook(self.conn_id, database=self.database).run(
            self.sql,
            autocommit=self.autocommit,
            parameters=self.parameters,
            handler=self.handler,
            split_statements=self.split_statements,
            return_last=self.return_last,
        )
        if self.show_return_value_in_logs:
            self.log.info("result: %r", found)
        return found


class SqliteOperator(SQLExecuteQueryOperator):
    """SQLExecuteQueryOperator under an older name, with ``sqlite_conn_id``."""

    def __init__(self, *, sqlite_conn_id: str = "sqlite_default", **kwargs: Any) -> None:
        super().__init__(**{"conn_id": sqlite_conn_id, **kwargs})


class PostgresOperator(SQLExecuteQueryOperator):
    """SQLExecuteQueryOperator under an older name, with ``postgres_conn_id``."""

    def __init__(self, *, postgres_conn_id: str = "postgres_default", **kwargs: Any) -> None:
        super().__init__(**{"conn_id": postgres_conn_id, **kwargs})


class MySqlOperator(SQLExecuteQueryOperator):
    """SQLExecuteQueryOperator under an older name, with ``mysql_conn_id``."""

    def __init__(self, *, mysql_conn_id: str = "mysql_default", **kwargs: Any) -> None:
        super().__init__(**{"conn_id": mysql_conn_id, **kwargs})
