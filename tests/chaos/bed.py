"""The bed: a database that can crash, and daemons that a supervisor starts again, as systemd would.

Two hosts share the database. They differ in what Roost knows of a host: each has a home and a host
id of its own, so the triggerer of one judges the other's by its lease only.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from roost.models.engine import open_engine
from roost.support.crypto import new_key
from roost.support.osproc import die_with_parent
from tests.chaos import audit, dagfile, scripts
from tests.support.daemons import ROOST, clean_environment
from tests.support.databases import migrate
from tests.support.postgres import PostgresServer
from tests.support.processes import descendants, kill_leftovers, with_environment

__all__ = ["INJECT", "Bed", "Database", "Member"]

INJECT = Path(__file__).with_name("inject")
_REPOSITORY = Path(__file__).resolve().parents[2]
_REVIVE_S = 30.0
_OPTIONS = ("fsync=off", "max_connections=300", "log_line_prefix=%m [%p] ")
_NO_DATABASE = "cannot be opened"


class Database:
    """The metadata database and how to break it."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.up_at = 0.0  # of a server that is down: when it comes back
        self._look_at = self._answered_at = time.monotonic()
        self.server: PostgresServer | None = None
        self.url = f"sqlite:///{folder / 'roost.db'}"
        if kind == "postgresql":
            # Commits reach the system's cache, which a crashed server does not take with it.
            self.server = PostgresServer(durable=True, options=_OPTIONS)
            info = self.server.start()
            stack.callback(self._stop, folder)
            self.url = info.url("postgres")
        migrate(self.url)
        self.engine: Engine = open_engine(self.url, sqlite_synchronous="normal")
        stack.callback(self.engine.dispose)
        audit.install(self.engine)

    def unguard(self) -> None:
        """Take from PostgreSQL what it refuses a second event with, for a mutant."""
        with self.engine.begin() as db:
            name = "uq_trigger_event_trigger_id"
            db.execute(text(f"ALTER TABLE trigger_event DROP CONSTRAINT {name}"))

    def _stop(self, folder: Path) -> None:
        """End the server; its log stays."""
        assert self.server is not None
        assert self.server.info is not None
        log = Path(self.server.info.socket_dir).with_name("log")
        shutil.copyfile(log, folder / "postgresql.log")
        self.server.stop()

    def crash(self, down_s: float) -> None:
        """As ``pg_ctl -m immediate``; it starts again after so long."""
        assert self.server is not None
        self.server.crash()
        self.up_at = time.monotonic() + down_s

    def tick(self) -> None:
        """Start what is to come back, and once more what did not come up."""
        now = time.monotonic()
        if self.server is None or now < max(self.up_at, self._look_at):
            return
        if self.up_at or (now >= self._answered_at + _REVIVE_S and not self._answers()):
            self.up_at, self._answered_at = 0.0, now
            self.server.restart()
        elif self._answers():
            self._answered_at = now
        self._look_at = now + 1

    def _answers(self) -> bool:
        for _ in range(2):  # the first may meet a connection that the crash has cut
            with contextlib.suppress(DBAPIError), self.engine.connect() as db:
                db.execute(text("SELECT 1"))
                return True
        return False

    def cut(self) -> None:
        """End every connection of others."""
        with self.engine.connect() as db:
            db.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """SQLite's one writer's place is taken meanwhile."""
        with self.engine.connect() as db, db.begin():
            yield


class Member:
    """A daemon that is started again whenever it has ended.

    Args:
        name: unique; the log's name.
        args: of ``roost``.
        home: its ROOST_HOME.
        env: its environment.
    """

    def __init__(self, name: str, args: tuple[str, ...], home: Path, env: dict[str, str]) -> None:
        self.name = name
        self.kind = args[0]
        self.host = home.name
        self._args, self._home, self._env = args, home, env
        self.process: subprocess.Popen[bytes] | None = None
        self.family: set[tuple[int, int]] = set()
        self.start_at = 0.0
        self.continue_at = 0.0  # of what is stopped
        self._stopped: list[int] = []
        self.starts = 0
        self.expected_end = False  # somebody has ended it
        self.doomed: dict[int, float] = {}  # when by pid, by the wall clock
        self.unexpected: list[str] = []  # how it ended otherwise
        self.refused = 0  # starts while the database was away: systemd tries again, and so do we
        self._log_from = 0

    @property
    def log(self) -> Path:
        """What all its incarnations wrote."""
        return self._home / f"{self.name}.log"

    @property
    def runs(self) -> bool:
        """Whether it lives and is not stopped."""
        return self.process is not None and not self.continue_at

    def start(self) -> None:
        """Start it at once."""
        self.starts += 1
        self.expected_end = False
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts} at {time.time():.3f}\n".encode())
            log.flush()
            self._log_from = log.tell()
            self.process = subprocess.Popen(
                [ROOST, "--verbose", *self._args],
                env=self._env,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),
            )

    def tick(self, back_after: tuple[float, float], rng: random.Random) -> None:
        """Continue what was stopped for long enough; start again what has ended."""
        now = time.monotonic()
        if self.continue_at and now >= self.continue_at:
            self.resume()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            if code == 2 and _NO_DATABASE in self.log.read_text()[self._log_from :]:
                self.refused += 1
            elif not self.expected_end:
                self.unexpected.append(f"{self.name} ended by itself with {code}")
            if self.start_at < now:
                self.start_at = now + rng.uniform(*back_after)
        if self.process is None and now >= self.start_at:
            self.start()

    def runners(self) -> list[int]:
        """The processes right below it."""
        return [] if self.process is None else sorted(pid for pid, _ in self._below())

    def _below(self) -> set[tuple[int, int]]:
        assert self.process is not None
        found = descendants(self.process.pid)
        self.family |= found
        return found

    def signal(self, number: int) -> None:
        """To the daemon alone."""
        if self.process is not None:
            self._below()
            self.process.send_signal(number)

    def die(self, gone_s: float = 0.0) -> None:
        """SIGKILL; ``gone_s``: with all below it, and for so long, as when a host is lost."""
        self.doom()
        below = self._below() if self.process is not None else set()
        self.signal(signal.SIGKILL)
        if gone_s:
            self.start_at = time.monotonic() + gone_s
            kill_leftovers(below)

    def term(self) -> None:
        """SIGTERM: it is to say goodbye."""
        self.doom()
        self.signal(signal.SIGTERM)

    def doom(self) -> None:
        """From now on it may end, and others may say that it has."""
        self.expected_end = True
        if self.process is not None:
            self.doomed.setdefault(self.process.pid, time.time())

    def stop(self, seconds: float, *, whole: bool) -> None:
        """SIGSTOP for so long; ``whole``: with all below it, as a host that stands still."""
        assert self.process is not None
        self._stopped = [self.process.pid, *(self.runners() if whole else [])]
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.continue_at = time.monotonic() + seconds

    def resume(self) -> None:
        """SIGCONT to what was stopped."""
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped, self.continue_at = [], 0.0

    def close(self) -> None:
        """End it for good, asking first."""
        self.resume()
        if self.process is not None:
            self.term()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        kill_leftovers(self.family)


class Bed:
    """Database, two hosts, and the daemons of both.

    Args:
        folder: everything is written below it.
        kind: ``postgresql`` or ``sqlite``, which admits one scheduler.
        mutant: the guard that the daemons have lost.
    """

    def __init__(self, folder: Path, kind: str, mutant: str = "") -> None:
        self.folder = folder
        self._stack = ExitStack()
        try:
            self._make(folder, kind, mutant)
        except BaseException:
            self._stack.close()
            raise

    def _make(self, folder: Path, kind: str, mutant: str) -> None:
        for name in ("dags", "alive", "files", "beach", "surf", "marks", "a", "b"):
            (folder / name).mkdir()
        (folder / "dags" / "chaos.py").write_text(Path(dagfile.__file__).read_text())
        self.database = Database(kind, folder, self._stack)
        if mutant == "second-event":
            self.database.unguard()
        shared = {
            "ROOST_CHAOS": str(folder),
            "ROOST_CHAOS_MUTANT": mutant,
            "ROOST__SECURITY__ENCRYPTION_KEY": new_key(),
            "PYTHONPATH": os.pathsep.join([str(INJECT), str(_REPOSITORY)]),
        }
        self.environments = {}
        for host in ("a", "b"):
            home = folder / host
            (home / "roost.toml").write_text(
                f'[core]\ndags_folder = "{folder / "dags"}"\n'
                f'[database]\nurl = "{self.database.url}"\nsqlite_synchronous = "normal"\n'
                f'[logging]\nfolder = "{folder / "logs"}"\n'
                "[scheduler]\nmax_losses = 1000\n[worker]\ndrain_timeout = 10\n"
            )
            self.environments[host] = clean_environment(home, ROOST_CHAOS_HOST=host, **shared)
        plan = [("a", "scheduler"), ("a", "worker"), ("a", "triggerer"), ("b", "triggerer")]
        if kind == "postgresql":
            plan.append(("b", "scheduler"))
        every = sorted({queue for queues in scripts.QUEUES.values() for queue in queues})
        self.members = {}
        for host, command in plan:
            queues = {"worker": every, "triggerer": scripts.QUEUES[host]}.get(command)
            args = (command,) if queues is None else (command, "--queues", ",".join(queues))
            name = f"{command}-{host}"
            self.members[name] = Member(name, args, folder / host, self.environments[host])
        for member in self.members.values():
            self._stack.callback(member.close)
        for pool, (slots, percent) in scripts.POOLS.items():
            self.cli("pools", "set", pool, str(slots), "--deferred-percent", str(percent))

    def cli(self, *args: str) -> str:
        """What a command says, on host a."""
        done = subprocess.run(
            [ROOST, *args], env=self.environments["a"], capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"roost {' '.join(args)} ended {done.returncode}:\n{done.stderr}")
        return done.stdout

    def logs(self) -> str:
        """What all daemons wrote."""
        return "".join(m.log.read_text(errors="replace") for m in self.members.values())

    def close(self) -> None:
        """End everything that was started."""
        self._stack.close()
        kill_leftovers(with_environment(f"ROOST_CHAOS={self.folder}"))
