"""A real RabbitMQ of our own, from Debian's rabbitmq-server, where that is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from roost.support.osproc import die_with_parent
from tests.support.postgres import free_port
from tests.support.waiting import wait_until

__all__ = ["MISSING", "RabbitServer"]

_BINARIES = Path("/usr/lib/rabbitmq/bin")

#: Why there can be no server here; empty: there can.
MISSING = "" if (_BINARIES / "rabbitmq-server").exists() else "needs Debian's rabbitmq-server"


class RabbitServer:
    """One broker with a node, a cookie, a port mapper and files of its own; a context manager.

    It can be stopped and started again on the same port, with the same durable queues.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="roost-mq-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._mapper: subprocess.Popen[bytes] | None = None
        epmd_port = str(free_port())
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": epmd_port,
            "RABBITMQ_NODENAME": f"roost-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_PID_FILE": str(self.home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbit"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "env"),
        }
        (self.home / "plugins").write_text("[].")
        (self.home / "rabbit.conf").write_text("heartbeat = 10\n")
        (self.home / "env").touch()

    def start(self) -> None:
        """Start it; returns when it takes connections, which needs some seconds."""
        if self._mapper is None:
            # Erlang would start one that nobody ends.
            self._mapper = self._spawn("epmd")
        self._process = self._spawn(str(_BINARIES / "rabbitmq-server"))
        wait_until(self._is_up, 120, "RabbitMQ to start")

    def _spawn(self, command: str) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        with (self.home / "out").open("ab") as output:
            return subprocess.Popen(
                [command],
                env=self._environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "out").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def stop(self) -> None:
        """End it, in an orderly way, so that its queues are on disk."""
        if self._process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(self._process.pid, number)
                    self._process.wait(60)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End all of it and remove its files."""
        self.stop()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
