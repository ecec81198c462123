"""What ``roost db`` does: bring a metadata database to a schema and say where it stands.

One command is one transaction, alone: PostgreSQL holds an advisory lock meanwhile, SQLite its
only write lock. Alembic is imported only when there are migrations to run, for it takes longer
than most commands; a database that is empty gets the newest schema without it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, cast

from sqlalchemy import Connection, Engine, text

from roost.exceptions import SchemaError
from roost.models import schema

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["Change", "alembic_config", "check", "downgrade", "migrate", "reset"]

# Any number that no other program takes for its own advisory lock in the same database.
_LOCK = 0x726F_6F73_7400


class Change(NamedTuple):
    """A revision before and after; None stands for a database without our schema."""

    before: str | None
    after: str | None


def check(engine: Engine) -> Change:
    """Where the database stands (``before``) and where it should (``after``)."""
    with engine.connect() as connection:
        return Change(schema.current_revision(connection), schema.HEAD)


def migrate(engine: Engine) -> Change:
    """Bring the schema to this version's; no-op when it is there.

    Raises:
        SchemaError: a newer Roost made the schema.
    """
    with _alone(engine) as connection:
        before = schema.current_revision(connection)
        if before is not None and before not in schema.REVISIONS:
            raise SchemaError(
                f"the database has schema {before}, which this Roost ({schema.HEAD}) does not "
                "know; install the newer Roost that made it"
            )
        if before is None and schema.is_empty(connection):
            schema.create(connection)
        elif before != schema.HEAD:
            _run(connection, "upgrade", "head")
        return Change(before, schema.HEAD)


def downgrade(engine: Engine, revision: str) -> Change:
    """Go back to an older revision, or to ``base``: nothing.

    Raises:
        SchemaError: the revision is not an older one.
    """
    with _alone(engine) as connection:
        before = schema.current_revision(connection)
        older = schema.REVISIONS[: schema.REVISIONS.index(before)] if before in _KNOWN else ()
        if revision != "base" and revision not in older:
            known = ", ".join((*older, "base"))
            raise SchemaError(f"cannot go from {before} back to {revision!r}; there is {known}")
        if before is not None:
            _run(connection, "downgrade", revision)
        return Change(before, None if revision == "base" else revision)


def reset(engine: Engine) -> Change:
    """Drop every table of ours with all that it holds, and make the schema anew."""
    from roost.models import tables  # start-up cost: see roost.models.schema

    with _alone(engine) as connection:
        before = schema.current_revision(connection)
        tables.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {schema.VERSION_TABLE}"))
        schema.create(connection)
        return Change(before, schema.HEAD)


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for our scripts on an open connection."""
    from alembic.config import Config  # start-up cost: see the module's text

    config = Config()
    config.set_main_option("script_location", str(files("roost.migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


_KNOWN = frozenset(schema.REVISIONS)


def _run(connection: Connection, command: str, revision: str) -> None:
    from alembic import command as commands  # start-up cost: see the module's text

    getattr(commands, command)(alembic_config(connection), revision)


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other migration runs beside."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            with _unchecked_keys(connection), connection.begin():
                yield connection
                _check_keys(connection)
            return
        with connection.begin():
            # A migration may rightly take longer than a daemon's statement.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection


@contextmanager
def _unchecked_keys(connection: Connection) -> Iterator[None]:
    """Batch mode drops and renames tables, which must not cascade; the end is checked instead.

    The pragma is a no-op inside a transaction, so it goes to the driver before BEGIN.
    """
    raw = cast(sqlite3.Connection, connection.connection.driver_connection)
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


def _check_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise SchemaError(f"rows would lose their parent; nothing was changed: {broken[:3]}")
