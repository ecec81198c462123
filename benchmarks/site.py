"""One Roost installation of its own: home, database, DAG files, real daemons."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg
from sqlalchemy import Engine

from benchmarks.machine import Span, cpu_ns, pss_mb, tree
from roost.migrations import api
from roost.models.engine import Sql, Tx, open_engine, read, transact
from roost.models.transitions import NewRun, create_run
from roost.support.clock import now_us
from roost.support.config import load_config
from roost.support.crypto import create_key_file, key_file
from roost.support.doorbell import Doorbell
from tests.support.daemons import Daemon, Daemons
from tests.support.postgres import PostgresServer, ServerInfo
from tests.support.waiting import wait_until

__all__ = ["ALL", "Server", "Site"]

ALL = ("scheduler", "triggerer", "worker")
_VERSION = Sql("SELECT version_id FROM dag WHERE dag_id = :dag_id")
_ACTIVE = Sql("SELECT count(*) FROM dag WHERE is_active")
_ERRORS = Sql("SELECT fileloc, error FROM dag_file WHERE error IS NOT NULL")
_OPEN_POOL = Sql("UPDATE pool SET slots = 100000 WHERE pool = 'default_pool'")
_UNFINISHED = Sql(
    "SELECT count(*) FROM dag_run WHERE run_id LIKE :runs AND state IN ('queued', 'running')"
)
_OUTCOMES = Sql(
    "SELECT t.state, count(*) AS n FROM task_instance t JOIN dag_run r ON r.id = t.dag_run_id "
    "WHERE r.run_id LIKE :runs GROUP BY t.state"
)
_STATEMENTS = (
    "SELECT coalesce(sum(calls), 0)::bigint, (SELECT xact_commit FROM pg_stat_database "
    "WHERE datname = %(name)s) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
    "WHERE d.datname = %(name)s"
)
_SITES = Path(__file__).parent / "sites"


class Server:
    """The PostgreSQL server of a session: durable as in production, and it counts statements.

    Attributes:
        homes: of the sites of the session, removed when it ends; not before, and apart from the
            system's temporary files: see :func:`benchmarks.machine.creation_us`.
    """

    def __init__(self) -> None:
        self.homes: list[Path] = []
        options = ("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.max=5000")
        self._server = PostgresServer(durable=True, options=options)
        self._info: ServerInfo | None = None
        self._numbers = itertools.count(1)

    @property
    def info(self) -> ServerInfo:
        """Where it listens; starts it at the first call."""
        if self._info is None:
            self._info = self._server.start()
            self.ask("CREATE EXTENSION pg_stat_statements")
        return self._info

    def ask(self, sql: str, params: Mapping[str, Any] | None = None) -> tuple[Any, ...] | None:
        """Run a statement in the database ``postgres``, apart from what is measured."""
        with psycopg.connect(self.info.dsn(), autocommit=True) as admin:
            cursor = admin.execute(sql.encode(), params)
            return cursor.fetchone() if cursor.description else None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a fresh database, dropped in the end."""
        name = f"bench_{next(self._numbers)}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield name
        finally:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def counters(self, database: str) -> tuple[int, int]:
        """Statements and commits of a database so far."""
        row = self.ask(_STATEMENTS, {"name": database})
        assert row is not None  # noqa: S101 - an aggregate has a row
        return int(row[0]), int(row[1])

    def new_home(self) -> Path:
        """A folder for an installation."""
        if not _SITES.exists():
            _SITES.mkdir(exist_ok=True)
            # On ext4: folders in it are far from each other, and from what was deleted in others.
            with suppress(OSError):
                subprocess.run(["chattr", "+T", str(_SITES)], capture_output=True, check=False)
        self.homes.append(Path(tempfile.mkdtemp(dir=_SITES)))
        return self.homes[-1]

    def close(self) -> None:
        """Stop it, if it was started, and remove all homes."""
        self._server.stop()
        for home in self.homes:
            shutil.rmtree(home, ignore_errors=True)


class Site:
    """A context manager around one installation; everything in it ends with it.

    Args:
        kind: ``sqlite`` or ``postgresql``.
        server: the session's PostgreSQL.
        settings: ``section.key`` to value, for ``roost.toml``.
    """

    def __init__(
        self, kind: str, server: Server, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.kind = kind
        self.home = server.new_home()
        self.witness = self.home / "witness.txt"
        self.server = server
        self._settings = dict(settings or {})
        self._database = server.database() if kind == "postgresql" else None
        self.database_name = ""

    def __enter__(self) -> Self:
        (self.home / "dags").mkdir()
        self.url = f"sqlite:///{self.home / 'roost.db'}"
        if self._database is not None:
            self.database_name = self._database.__enter__()
            self.url = self.server.info.url(self.database_name)
        self._configure()
        self.config = load_config({"ROOST_HOME": str(self.home)})
        create_key_file(key_file(self.config))
        self.engine: Engine = open_engine(self.url)
        api.migrate(self.engine)
        transact(self.engine, lambda tx: tx.run(_OPEN_POOL))
        self.daemons = Daemons(self.home)
        self.running: dict[str, Daemon] = {}
        self._bell = Doorbell(self.home / "run")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for daemon in self.running.values():
            if complaints := daemon.output[-3000:]:  # they write warnings only
                print(f"--- {daemon.name}\n{complaints}", file=sys.stderr)
        self._bell.close()
        try:
            self.daemons.close()
        finally:
            self.engine.dispose()
            if self._database is not None:
                self._database.__exit__(None, None, None)

    def _configure(self) -> None:
        values = {"core.dags_folder": str(self.home / "dags"), "database.url": self.url}
        values |= {"logging.level": "WARNING", **self._settings}
        sections: dict[str, list[str]] = {}
        for name, value in values.items():
            section, _, key = name.partition(".")
            # JSON writes texts, numbers, booleans and lists as TOML does.
            line = f"{key} = {msgspec.json.encode(value).decode()}"
            sections.setdefault(section, []).append(line)
        text = "".join(f"[{name}]\n" + "\n".join(keys) + "\n" for name, keys in sections.items())
        (self.home / "roost.toml").write_text(text)

    def write_dags(self, files: Mapping[str, str]) -> None:
        """Put DAG files in place, by name without ``.py``."""
        for name, source in files.items():
            (self.home / "dags" / f"{name}.py").write_text(source)

    def start(self, *names: str) -> None:
        """Start daemons, by default all three, and wait until they are ready."""
        kinds = names or ALL
        self.running |= dict(zip(kinds, self.daemons.start_all(*kinds), strict=True))

    def stop(self, *names: str) -> None:
        """Stop daemons in good order, by default all."""
        for name in names or tuple(self.running):
            self.running.pop(name).stop(60)

    def start_with(self, files: Mapping[str, str], *names: str) -> None:
        """Write DAG files, start daemons, and wait until all is parsed and quiet."""
        self.write_dags(files)
        self.start(*names)
        self.wait_parsed(len(files))
        self.quiet()

    def wait_parsed(self, number: int) -> None:
        """Until ``number`` DAGs are there.

        Raises:
            RuntimeError: a DAG file could not be imported.
        """

        def parsed() -> bool:
            with read(self.engine) as tx:
                if errors := tx.all(_ERRORS):
                    raise RuntimeError("\n".join(f"{row.fileloc}: {row.error}" for row in errors))
                return bool(tx.scalar(_ACTIVE) >= number)

        wait_until(parsed, 180, f"{number} DAGs")

    def quiet(self, seconds: float = 60) -> None:
        """Until the daemons use less than 5 % of a core over a second, or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            span = self.span()
            time.sleep(1)
            _, used, _ = span.done()
            if sum(used[name] for name in self.running) < 0.05:
                return

    def span(self) -> Span:
        """Start to count CPU, of each daemon's tree and of the database."""
        groups = {name: daemon.pid for name, daemon in self.running.items()}
        if self.kind == "postgresql":
            groups["postgres"] = self.server.info.server_pid
        return Span(groups, self.home)

    def memory_mb(self, *names: str) -> dict[str, float]:
        """Proportional memory of each daemon with all its children."""
        return {name: pss_mb(tree(self.running[name].pid)) for name in names or self.running}

    def cpu_ns(self, name: str) -> int:
        """CPU of one daemon's own process."""
        return cpu_ns(self.running[name].pid)

    def trigger(self, dag_ids: Sequence[str], run_ids: Sequence[str], conf: str = "{}") -> float:
        """Create a run of every id for every DAG in one transaction, and ring the scheduler.

        What ``roost dags trigger`` does, without the start of a process.

        Returns:
            The wall clock right before, in seconds.
        """

        def create(tx: Tx) -> None:
            for dag_id in dag_ids:
                version = tx.scalar(_VERSION, dag_id=dag_id)
                for run_id in run_ids:
                    now = now_us()
                    run = NewRun(dag_id, run_id, "manual", version, now, None, None, now, conf)
                    if create_run(tx, run, actor="bench") is None:
                        raise RuntimeError(f"run {run_id} of {dag_id} exists")

        started = time.time()
        transact(self.engine, create)
        self._bell.ring("scheduler")
        return started

    def ring(self, kind: str) -> None:
        """Wake a daemon as another one would."""
        self._bell.ring(kind)

    def wait_runs(self, runs: str, timeout: float = 180) -> None:
        """Until every run whose id is LIKE ``runs`` has ended, and all of it succeeded.

        Raises:
            RuntimeError: a task instance ended otherwise, or a daemon died.
        """

        def over() -> bool:
            for name, daemon in self.running.items():
                if (code := daemon.process.poll()) is not None:
                    raise RuntimeError(f"the {name} ended with {code} while runs {runs} were due")
            with read(self.engine) as tx:
                return bool(tx.scalar(_UNFINISHED, runs=runs) == 0)

        wait_until(over, timeout, f"runs {runs}")
        outcomes = {row.state: row.n for row in self.rows(_OUTCOMES, runs=runs)}
        if set(outcomes) != {"success"}:
            raise RuntimeError(f"runs {runs} ended as {outcomes}")

    def rows(self, sql: Sql, **params: Any) -> Sequence[Any]:
        """Read from the metadata database."""
        with read(self.engine) as tx:
            return tx.all(sql, **params)

    def take_witness(self) -> list[list[int]]:
        """The lines that tasks wrote so far, as numbers; empties the file."""
        lines = self.witness.read_text().splitlines() if self.witness.exists() else []
        self.witness.unlink(missing_ok=True)
        return [[int(word) for word in line.split()] for line in lines]
