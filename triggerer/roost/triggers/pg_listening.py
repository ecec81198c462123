"""The connection to a PostgreSQL server on which a runner's triggers hear its notifications."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from contextlib import suppress
from typing import Any

from roost.dag.connection import Connection
from roost.exceptions import RoostException
from roost.triggers.servers import (
    Hub,
    Patience,
    client_library,
    end_task,
    one_line,
    start_task,
)

__all__ = ["Ear", "Listening", "conninfo"]

log = logging.getLogger(__name__)

# What no waiting mends. Words, since libpq gives no code for a connection that was refused.
_REFUSED = re.compile(
    r"password authentication failed|authentication failed for user|no password supplied"
    r"|pg_hba\.conf|(role|database) .* does not exist|permission denied|invalid .*option",
)
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_NOT_LIBPQ = ("driver", "sqlalchemy_url")


class Ear:
    """One trigger that listens on one channel."""

    __slots__ = ("_anew", "_failure", "_heard", "_waiter")

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._anew = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: RoostException | None = None

    async def wait(self, longest: float | None) -> tuple[list[str], bool]:
        """What was heard since the last call, and whether the server notifies us anew."""
        if not (self._failure or self._heard or self._anew):
            self._waiter = asyncio.get_running_loop().create_future()
            if longest is None:
                await self._waiter
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(longest):
                        await self._waiter
        if self._failure is not None:
            raise self._failure
        heard, anew = self._heard, self._anew
        self._heard, self._anew = [], False
        return heard, anew

    def hear(self, payload: str | None) -> None:
        """A notification; None: the server has begun to notify us."""
        if payload is None:
            self._anew = True
        else:
            self._heard.append(payload)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: RoostException) -> None:
        """There is nothing more to hear."""
        self._failure = error
        self.hear(None)


class Listening(Hub):
    """One connection to a server: listens on all channels that triggers have an ear for."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self._ears: dict[str, set[Ear]] = {}
        self._new: list[tuple[str, Ear]] = []
        self._questions: deque[tuple[str, asyncio.Future[Any]]] = deque()
        self._news = asyncio.Event()
        self._task = start_task(self._keep(), f"listening-{conn_id}")

    def lend(self, channel: str) -> Ear:
        """An ear for a channel; its ``wait`` returns once the server knows of it."""
        ear = Ear()
        self._ears.setdefault(channel, set()).add(ear)
        self._new.append((channel, ear))
        self._news.set()
        return ear

    def take_back(self, channel: str, ear: Ear) -> None:
        """The ear is not used any more."""
        left = self._ears[channel]
        left.discard(ear)
        if not left:
            del self._ears[channel]
            self._news.set()

    async def ask(self, sql: str) -> Any:
        """The first cell of a query's first row.

        Raises:
            RoostException: the query is wrong.
        """
        answer = asyncio.get_running_loop().create_future()
        self._questions.append((sql, answer))
        self._news.set()
        return await answer

    async def close(self) -> None:
        await end_task(self._task)

    # -- the connection ------------------------------------------------------------------------

    async def _keep(self) -> None:
        try:
            await self._reconnect_for_ever()
        except Exception as error:  # whatever it is, those who wait must hear of it
            if not isinstance(error, RoostException):
                log.exception("connection %r: listening failed", self.key)
                error = RoostException(f"connection {self.key!r}: {one_line(error)}")
            self.spent = True
            for ears in self._ears.values():
                for ear in ears:
                    ear.fail(error)
            for _, answer in self._questions:
                if not answer.done():
                    answer.set_exception(error)

    async def _reconnect_for_ever(self) -> None:
        psycopg = await client_library("psycopg", "postgres")
        patience = Patience(self.key)
        while True:
            # Read again each time: the password may have been changed meanwhile.
            arguments = conninfo(await self.connection(self.key))
            connection: Any = None
            try:
                connection = await psycopg.AsyncConnection.connect(autocommit=True, **arguments)
                await self._serve(psycopg, connection, patience)
            except psycopg.OperationalError as error:
                if connection is None and _REFUSED.search(str(error)):
                    raise RoostException(f"connection {self.key!r}: {one_line(error)}") from None
                await patience.wait(error)
            finally:
                if connection is not None:
                    await connection.close()

    async def _serve(self, psycopg: Any, connection: Any, patience: Patience) -> None:
        connection.add_notify_handler(lambda note: self._hear(note.channel, note.payload))
        listening: set[str] = set()
        self._new = [(channel, ear) for channel, ears in self._ears.items() for ear in ears]
        while True:
            self._news.clear()
            await self._tune(psycopg, connection, listening)
            patience.reached()
            await self._answer(psycopg, connection)
            self._drain(connection.pgconn)  # what came in with an answer
            await self._readable(connection.fileno())
            connection.pgconn.consume_input()
            self._drain(connection.pgconn)

    async def _tune(self, psycopg: Any, connection: Any, listening: set[str]) -> None:
        """Have the server notify us on exactly the channels that somebody has an ear for."""
        new, self._new = self._new, []
        try:
            for word, channels in (
                ("LISTEN", self._ears.keys() - listening),
                ("UNLISTEN", listening - self._ears.keys()),
            ):
                for channel in sorted(channels):
                    name = psycopg.sql.Identifier(channel)
                    await connection.execute(psycopg.sql.SQL(word + " {}").format(name))
                    (listening.add if word == "LISTEN" else listening.discard)(channel)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise RoostException(f"connection {self.key!r}: {one_line(error)}") from None
        for _, ear in new:
            ear.hear(None)

    async def _answer(self, psycopg: Any, connection: Any) -> None:
        while self._questions:
            sql, answer = self._questions[0]
            if not answer.done():
                try:
                    cursor = await connection.execute(sql)
                    row = None if cursor.description is None else await cursor.fetchone()
                except psycopg.OperationalError:
                    raise  # asked again by the next connection
                except psycopg.Error as error:
                    told = f"connection {self.key!r}: {one_line(error)} in check_sql"
                    if not answer.done():
                        answer.set_exception(RoostException(told))
                else:
                    if not answer.done():
                        answer.set_result(_plain(row[0] if row else None))
            self._questions.popleft()

    async def _readable(self, fd: int) -> None:
        """Until the server says something, or somebody here wants something of it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(fd, self._news.set)
        try:
            await self._news.wait()
        finally:
            loop.remove_reader(fd)

    def _drain(self, pgconn: Any) -> None:
        while (note := pgconn.notifies()) is not None:
            self._hear(note.relname.decode(), note.extra.decode())

    def _hear(self, channel: str, payload: str) -> None:
        for ear in self._ears.get(channel, ()):
            ear.hear(payload)


def conninfo(connection: Connection) -> dict[str, Any]:
    """What libpq is given for a connection.

    Raises:
        RoostException: it is not one to PostgreSQL.
    """
    if connection.conn_type.lower() not in ("postgres", "postgresql"):
        raise RoostException(
            f"connection {connection.conn_id!r} is of the type {connection.conn_type!r}; "
            "NOTIFY needs one of the type postgres"
        )
    extra = {k: v for k, v in connection.extra_dejson.items() if k not in _NOT_LIBPQ}
    given = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    own = {"application_name": "roost triggerer", "connect_timeout": 10, **_KEEPALIVES}
    return {**own, **extra, **{name: value for name, value in given.items() if value is not None}}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
