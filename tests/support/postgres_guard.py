"""The process that owns a test server: it ends it on SIGTERM and when the watched process ends.

On SIGUSR2 it crashes the server, as ``pg_ctl stop -m immediate`` does, and on SIGUSR1 it starts it
again on the same data and port, after a crash if it runs.

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
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    with (Path(order.scratch) / "log").open("ab") as log:
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
    for number in (*_ENDS, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    server = launch(order)
    try:
        if not ready(server, Path(order.scratch) / "home"):
            return  # the scratch folder stays: whoever ordered may try another port
        answer = f"{os.getpid()} {server.pid}".encode()
        os.write(1, answer)
        os.close(1)  # whoever ordered waits for this end of the pipe to close
        while wish := wait(awake, order.watched_pid):
            crash(server)
            if wish == signal.SIGUSR1:
                server = launch(order)
    finally:
        crash(server)  # the data is thrown away
    shutil.rmtree(order.scratch, ignore_errors=True)


def crash(server: subprocess.Popen[bytes]) -> None:
    """End a server at once, without a checkpoint: what it committed is in its log only."""
    if server.poll() is None:
        server.send_signal(signal.SIGQUIT)
    server.wait()


def wait(awake: int, watched_pid: int) -> int:
    """Until a signal that wants something of the server comes in: that one.

    0 when it is time to go: by another signal, or because the watched process is gone.
    """
    try:
        watched = os.pidfd_open(watched_pid)
    except ProcessLookupError:
        return 0
    try:
        if watched in select.select([awake, watched], [], [])[0]:
            return 0
    finally:
        os.close(watched)
    (number,) = os.read(awake, 1)
    return 0 if number in _ENDS else number


main()
