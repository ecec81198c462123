"""Real ``roost`` processes for tests: started, awaited by their own signal, always cleaned up."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from roost.support.osproc import die_with_parent
from tests.support.processes import descendants, kill_leftovers, with_environment

__all__ = ["Daemon", "Daemons", "clean_environment"]

ROOST = str(Path(sys.executable).with_name("roost"))
_STOP_S = 20.0
_numbers = itertools.count(1)


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without settings of the developer's own Roost."""
    ours = ("ROOST_", "AIRFLOW_", "NOTIFY_SOCKET", "WATCHDOG_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "ROOST_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def _as_from_a_terminal(parent: int) -> None:
    """Ctrl-C is heard, though the suite may run in the background of a shell that ignores it; and
    however the test ends, its daemons are asked to stop."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(parent, signal.SIGTERM)


class Daemon:
    """One ``roost`` process with a notify socket that the test listens on.

    Attributes:
        name: the command's first word and a number, as in ``scheduler-1``.
        notified: every ``KEY=value`` line it sent so far (``READY=1``, ``STATUS=…``).
    """

    def __init__(
        self, args: tuple[str, ...], home: Path, env: dict[str, str], command: str = ROOST
    ) -> None:
        number = next(_numbers)
        self.name = f"{args[0]}-{number}"
        self.notified: list[str] = []
        self.home = home
        self._family: set[tuple[int, int]] = set()
        self._log = home / f"{self.name}.out"
        address = f"roost-test-{os.getpid()}-{number}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(f"\0{address}")  # abstract: no path that could be too long
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [command, *args],
                env={**env, "NOTIFY_SOCKET": f"@{address}"},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(_as_from_a_terminal, os.getpid()),
            )

    @property
    def pid(self) -> int:
        """The pid of the daemon itself."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What it wrote to stdout and stderr so far."""
        return self._log.read_text(errors="replace")

    def wait_notified(self, line: str, timeout: float = 45) -> None:
        """Wait until the daemon has sent ``line`` to its notify socket.

        Raises:
            RuntimeError: it ended first, or stayed silent; holds its output.
        """
        deadline = time.monotonic() + timeout
        ended = os.pidfd_open(self.pid)
        heard = self._notify.fileno()
        try:
            while line not in self.notified:
                left = deadline - time.monotonic()
                readable, _, _ = select.select([heard, ended], [], [], max(0, left))
                if heard in readable:
                    self.notified += self._notify.recv(65536).decode().splitlines()
                elif readable or left <= 0:
                    why = "ended" if readable else f"did not send it within {timeout:g} s"
                    raise RuntimeError(f"waiting for {line}, {self.name} {why}:\n{self.output}")
        finally:
            os.close(ended)

    def wait_ready(self, timeout: float = 45) -> None:
        """Wait for ``READY=1``."""
        self.wait_notified("READY=1", timeout)

    def family(self) -> set[int]:
        """The pids of all live processes below the daemon."""
        return {pid for pid, _ in descendants(self.pid)}

    def signal(self, number: int) -> None:
        """Send the daemon itself a signal."""
        self._family |= descendants(self.pid)
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the daemon alone, as a crash would; its children are on their own."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout: float = _STOP_S) -> int:
        """Wait for the daemon to end by itself; returns its exit code."""
        return self.process.wait(timeout)

    def stop(self, timeout: float = _STOP_S) -> int:
        """SIGTERM, then wait for the end; returns the exit code.

        Raises:
            RuntimeError: it did not end in time; it was killed.
        """
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self._ended(timeout)

    def _ended(self, timeout: float) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"{self.name} did not end within {timeout:g} s of SIGTERM:\n{self.output}"
            raise RuntimeError(message) from None

    def close(self) -> list[str]:
        """Remove every trace; returns the command lines of children that outlived it."""
        if self.process.poll() is None:
            self.kill()
        self._notify.close()
        return kill_leftovers(self._family)


class Daemons:
    """Starts ``roost`` commands in one Roost home and cleans up after them.

    Args:
        home: their ROOST_HOME.
        command: the ``roost`` to run; by default that of this environment.
        env: more environment for all of them.
    """

    def __init__(self, home: Path, command: str = ROOST, **env: str) -> None:
        self.home = home
        self.command = command
        self.env = clean_environment(home, **env)
        self.started: list[Daemon] = []

    def start(self, *args: str, ready: bool = True, env: dict[str, str] | None = None) -> Daemon:
        """Start ``roost ARGS``; with ``ready`` return only when it says that it is."""
        daemon = Daemon(args, self.home, {**self.env, **(env or {})}, self.command)
        self.started.append(daemon)
        if ready:
            daemon.wait_ready()
        return daemon

    def start_all(self, *names: str) -> list[Daemon]:
        """Start several daemons at once and wait for all; by default one of each kind."""
        kinds = names or ("scheduler", "triggerer", "worker")
        daemons = [self.start(name, ready=False) for name in kinds]
        for daemon in daemons:
            daemon.wait_ready()
        return daemons

    def cli(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with ``check`` a failure raises with its stderr."""
        done = subprocess.run(
            [self.command, *args],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise RuntimeError(f"roost {' '.join(args)} ended {done.returncode}:\n{done.stderr}")
        return done

    def json(self, *args: str) -> Any:
        """Run a listing with ``-o json`` and return what it printed, decoded."""
        return msgspec.json.decode(self.cli(*args, "-o", "json").stdout)

    def close(self) -> None:
        """Stop what still runs, then kill whatever is left of it.

        Raises:
            RuntimeError: a daemon did not follow SIGTERM.
        """
        errors = []
        running = [daemon for daemon in self.started if daemon.process.poll() is None]
        for daemon in running:
            daemon.signal(signal.SIGCONT)
            daemon.signal(signal.SIGTERM)
        for daemon in running:
            try:
                daemon._ended(_STOP_S)
            except RuntimeError as error:
                errors.append(str(error))
        for daemon in self.started:
            daemon.close()
        kill_leftovers(with_environment(f"ROOST_HOME={self.home}"))
        if errors:
            raise RuntimeError("\n".join(errors))
