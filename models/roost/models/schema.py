"""Which schema this version of Roost needs, without Alembic: a daemon only compares two words.

:data:`REVISIONS` names Alembic's revisions in order; a test holds it equal to the scripts in
:mod:`roost.migrations`. A database that is empty may be given the newest schema at once
(:func:`create`); a test holds the result equal to running every migration.
"""

from __future__ import annotations

import os

from sqlalchemy import Connection, Engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from roost.exceptions import SchemaError

__all__ = ["HEAD", "REVISIONS", "create", "current_revision", "is_empty", "require_schema"]

REVISIONS = ("0001", "0002", "0003")
HEAD = REVISIONS[-1]
VERSION_TABLE = "alembic_version"
DEFAULT_POOL = {
    "pool": "default_pool",
    "slots": 128,
    "description": "Tasks that name no pool",
}  # S38


def current_revision(connection: Connection) -> str | None:
    """The revision of the database; None where Roost has no schema in it."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")
    revision: str | None = connection.execute(query).scalar()
    return revision


def is_empty(connection: Connection) -> bool:
    """Whether the database holds no table at all."""
    return not inspect(connection).get_table_names()


def create(connection: Connection) -> None:
    """Give an empty database the newest schema, inside the caller's transaction."""
    # The tables load both dialects; every other process does without them (start-up cost).
    from roost.models import tables

    tables.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(tables.pool).values(DEFAULT_POOL))
    connection.execute(
        text(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(
        text(f"INSERT INTO {VERSION_TABLE} VALUES (:head)"),
        {"head": HEAD},
    )


def require_schema(engine: Engine) -> None:
    """Refuse a database whose schema this version of Roost does not know.

    Raises:
        SchemaError: the schema is missing, older or newer; or the database cannot be opened.
    """
    url = engine.url.render_as_string(hide_password=True)
    path = engine.url.database if engine.dialect.name == "sqlite" else None
    if path and path != ":memory:" and not os.path.exists(path):
        # Opening it would leave an empty file behind.
        raise SchemaError(f"there is no metadata database {url}; run `roost db migrate`")
    try:
        with engine.execution_options(roost_reading=True).connect() as connection:
            current = current_revision(connection)
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise SchemaError(
            f"the metadata database {url} cannot be opened: {reason}; check database.url"
        ) from None
    if current == HEAD:
        return
    if current is None:
        what, remedy = "has no Roost schema", "run `roost db migrate`"
    elif current in REVISIONS:
        what = f"has the older schema {current}, this Roost needs {HEAD}"
        remedy = "run `roost db migrate`"
    else:
        what = f"has schema {current}, which this Roost ({HEAD}) does not know"
        remedy = "install the newer Roost that made it, or downgrade the database with that one"
    raise SchemaError(f"the metadata database {url} {what}; {remedy}")
