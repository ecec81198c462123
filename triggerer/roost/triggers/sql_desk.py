"""Queries of triggers: one thread and one connection for each database that they ask.

A driver blocks, so it is never called in the loop. A query that hangs keeps its thread; the poll
is given up, and the next one gets another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.hooks.sql import database_url, engine_of, first_line
from roost.triggers.shared import Shared, lend

__all__ = ["Answer", "Question", "ask_all"]

# Of DB-API 2: the database is away, or busy, or it is SQLite's word for much else.
_PASSING = ("OperationalError", "InterfaceError")


class Question(NamedTuple):
    """A query and its parameters."""

    sql: str
    parameters: Mapping[str, Any] | Sequence[Any] | None


Answer = tuple[Any, ...] | BaseException | None
"""The first row, None where there is none, or why there is no answer."""


class _Desk(Shared):
    """Where the queries to one database are asked, one after the other."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, f"sql {connection.conn_id}")
        self._open: Any = None  # a sqlalchemy.Connection; only the hook may import that

    async def ask(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        """The answer to each question.

        Raises:
            RoostException: the connection names no database, or there is no driver for it.
            Exception: the database cannot be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._ask, questions)
        except asyncio.CancelledError:
            self.spent = True  # it may hang for ever
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection when the thread is done; nobody waits for that."""
        with suppress(RuntimeError):  # closed already
            self._thread.submit(self._hang_up)
        self._thread.shutdown(wait=False)

    # -- in the thread

    def _ask(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for key, question in questions.items():
            if self._open is None:
                self._open = self._connect()
            try:
                answers[key] = self._first_row(self._open, question)
            except Exception as error:  # each driver has its own
                answers[key] = self._told(question, error)
                if not isinstance(answers[key], RoostException):
                    self._hang_up()  # whether it was the connection is not worth asking
        return answers

    def _connect(self) -> Any:
        engine = engine_of(self._connection.conn_id, database_url(self._connection))
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _first_row(self, opened: Any, question: Question) -> tuple[Any, ...] | None:
        cursor = opened.connection.cursor()
        try:
            given = question.parameters
            if given is None:
                cursor.execute(question.sql)
            else:
                cursor.execute(question.sql, given if isinstance(given, Mapping) else tuple(given))
            if cursor.description is None:
                return None
            row: Any = cursor.fetchone()
            return None if row is None else tuple(row)
        finally:
            cursor.close()

    def _told(self, question: Question, error: Exception) -> BaseException:
        shown = " ".join(question.sql[:80].split())
        text = f"connection {self._connection.conn_id!r}: {first_line(error)} in: {shown}"
        passing = any(kind.__name__ in _PASSING for kind in type(error).__mro__)
        return OSError(text) if passing else RoostException(text)

    def _hang_up(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            with suppress(Exception):  # it is broken
                opened.invalidate()
                opened.close()


async def ask_all(conn_id: str, questions: Mapping[str, Question]) -> dict[str, Answer]:
    """The answers of one database.

    Raises:
        RoostException: there is no such connection, or no driver for it.
        Exception: the database cannot be reached.
    """
    connection = await Connection.get_async(conn_id)

    async def make() -> _Desk:
        return _Desk(connection)

    async with lend(_Desk, connection.get_uri(), make) as desk:
        return await desk.ask(questions)
