"""Fresh databases for tests: each one is a copy of a template that was migrated once a session."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from roost.migrations import api
from roost.models.engine import open_engine
from tests.support.postgres import PostgresServer, ServerInfo, stop

__all__ = ["Databases", "fetch"]

_TEMPLATE = "roost_template"


def fetch(url: str, sql: str, **params: Any) -> list[dict[str, Any]]:
    """Run one statement on a connection of its own, commit, and return the rows as dicts."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as db:
        result = db.execute(sa.text(sql), params)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


def migrate(url: str) -> None:
    """Give an empty database the newest schema, as ``roost db migrate`` does."""
    engine = open_engine(url)
    api.migrate(engine)
    engine.dispose()


class Databases:
    """Makes and drops databases; one for each test process, all on one shared server.

    Args:
        shared: a folder that all test processes of this session see.
        controller_pid: the process that runs the session; the server ends with it.
        worker: a name for this test process, unique within the session.
    """

    def __init__(self, shared: Path, controller_pid: int, worker: str) -> None:
        self._shared = shared
        self._controller_pid = controller_pid
        self._worker = worker
        self._made = 0
        self._admin: psycopg.Connection[tuple[Any, ...]] | None = None
        self._info: ServerInfo | None = None

    @contextmanager
    def sqlite(self, folder: Path, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a fresh SQLite file in ``folder``."""
        path = folder / "roost.db"
        if migrated:
            with self._lock("sqlite"):
                template = self._shared / "template.db"
                if not template.exists():
                    migrate(f"sqlite:///{template}")
            shutil.copyfile(template, path)
        yield f"sqlite:///{path}"

    @contextmanager
    def postgresql(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a fresh PostgreSQL database, dropped afterwards whoever uses it still."""
        info, admin = self._connect()
        self._made += 1
        name = f"test_{self._worker}_{self._made}"
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        try:
            yield info.url(name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Close this process's own connection; the server goes on for the others."""
        if self._admin is not None:
            self._admin.close()

    def _connect(self) -> tuple[ServerInfo, psycopg.Connection[tuple[Any, ...]]]:
        if self._info is None or self._admin is None:
            self._info = self._serve()
            self._admin = psycopg.connect(self._info.dsn(), autocommit=True)
        return self._info, self._admin

    def _serve(self) -> ServerInfo:
        """The session's one server, started by whichever test process wants it first."""
        note = self._shared / "postgres.json"
        with self._lock("postgres"):
            if note.exists():
                return msgspec.json.decode(note.read_bytes(), type=ServerInfo)
            info = PostgresServer(watched_pid=self._controller_pid).start()
            with psycopg.connect(info.dsn(), autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
            migrate(info.url(_TEMPLATE))
            note.write_bytes(msgspec.json.encode(info))
            return info

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self._shared / f"{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def stop_server(shared: Path) -> None:
    """End the session's server, if any test started one; returns when it is gone."""
    note = shared / "postgres.json"
    if not note.exists():
        return
    stop(msgspec.json.decode(note.read_bytes(), type=ServerInfo))
