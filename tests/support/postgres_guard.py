"""The process that owns a test server: it ends it on SIGTERM and when the watched process ends.

Run as ``python -m tests.support.postgres_guard``; takes its orders as JSON on stdin, leaves a
process of its own session behind, and answers with that process's pid and the server's once the
server accepts connections, or with nothing.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

_UP_S = 30.0


class Order(msgspec.Struct):
    """What to start and whom to outlive by no more than a moment."""

    scratch: str
    postgres: str
    settings: list[str]
    watched_pid: int
    uid: int | None
    gid: int | None


def launch(order: Order) -> subprocess.Popen[bytes]:
    """Start the server itself; its log goes to ``log`` in the scratch folder."""
    home = Path(order.scratch) / "home"
    command = [order.postgres, "-D", str(home / "data")]
    for setting in order.settings:
        command += ["-c", setting]
    with (Path(order.scratch) / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=home,
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            user=order.uid,
            group=order.gid,
            extra_groups=None if order.uid is None else [],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def ready(server: subprocess.Popen[bytes], home: Path) -> bool:
    """Whether the server came up: its pid file says so in its last line."""
    deadline = time.monotonic() + _UP_S
    pid_file = home / "data" / "postmaster.pid"
    while server.poll() is None and time.monotonic() < deadline:
        if pid_file.exists() and pid_file.read_text().rstrip().endswith("ready"):
            return True
        time.sleep(0.02)
    return False


def main() -> None:
    """Guard one server until told to stop or the watched process is gone."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    if os.fork():
        return  # its child carries on, without a parent that would have to wait for it
    os.setsid()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    server = launch(order)
    try:
        if not ready(server, Path(order.scratch) / "home"):
            return  # the scratch folder stays: whoever ordered may try another port
        answer = f"{os.getpid()} {server.pid}".encode()
        os.write(1, answer)
        os.close(1)  # whoever ordered waits for this end of the pipe to close
        wait(awake, order.watched_pid)
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGQUIT)  # immediate: the data is thrown away
        server.wait()
    shutil.rmtree(order.scratch, ignore_errors=True)


def wait(awake: int, watched_pid: int) -> None:
    """Until a signal comes in or the watched process is gone."""
    try:
        watched = os.pidfd_open(watched_pid)
    except ProcessLookupError:
        return
    select.select([awake, watched], [], [])


main()
