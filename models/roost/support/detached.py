"""Commands that outlive the process that started them: started, found again, judged, ended.

A small shell stands between us and the command. It leads a session of its own, notes who it is
(``id``) and, when the command has ended, its exit code (``exit``), each in a file of the command's
folder that appears whole or not at all. So whoever comes later, in whatever process of the same
host, can tell how it went: an exit code, still running, or ended by force.

The environment of the command bears :data:`DETACHED` instead of the marks by which a worker finds
and kills what its tasks leave behind.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from roost.support.osproc import read_environ

__all__ = [
    "DETACHED",
    "OUTPUT",
    "Detached",
    "exit_code",
    "find",
    "is_detached",
    "kill",
    "output_tail",
    "remove",
    "start",
    "token_in",
]

DETACHED = "ROOST_DETACHED"
"""Holds the token of a detached command in it and in all that it starts."""

OUTPUT = "output"
"""Name of the file in the command's folder that takes what it prints."""

# roost.worker.marks: what carries these is killed with the task or the worker.
_WORKER_MARKS = ("ROOST_WORKER_TOKEN", "ROOST_TASK_MARK")
_SHELL = """
read -r stat < /proc/$$/stat && printf '%s\\n' "$stat" > "$0/id.new" && mv "$0/id.new" "$0/id"
"$@"
code=$?
printf '%s\\n' "$code" > "$0/exit.new" && mv "$0/exit.new" "$0/exit"
"""
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROUNDS = 100


class Detached(NamedTuple):
    """A command that was started: where its files are and who its shell is.

    Attributes:
        started: start time of the shell, in ticks since boot.
    """

    folder: str
    token: str
    pid: int
    started: int
    hostname: str
    host_id: str

    def is_alive(self) -> bool:
        """Whether it runs; asked on its own host."""
        from roost.support.processes import is_alive  # late: every DAG file would pay for it

        return is_alive(self.pid, self.started)


def start(
    command: Sequence[str],
    folder: str,
    *,
    environ: Mapping[str, str],
    cwd: str | None = None,
    mask: Collection[signal.Signals] = (),
) -> Detached:
    """Start a command that no end of ours ends.

    Args:
        command: program and arguments; one that is not found ends with exit code 127.
        folder: of its files; must not exist.
        environ: its environment.
        cwd: where it runs; None: in an empty folder.
        mask: signals that are blocked in it.

    Raises:
        OSError: the folder cannot be made, or nothing can be started.
    """
    import socket  # late: a worker's zygote imports this module, and starts nothing
    import subprocess
    from uuid import uuid4

    from roost.support.processes import host_id

    os.makedirs(os.path.join(folder, "work"))
    token = uuid4().hex
    with open(os.path.join(folder, "token"), "x") as file:
        file.write(f"{token} {host_id()} {socket.gethostname()}\n")
    kept = {name: value for name, value in environ.items() if name not in _WORKER_MARKS}
    with open(os.path.join(folder, OUTPUT), "xb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, folder, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd or os.path.join(folder, "work"),
            env={"PATH": _SYSTEM_PATH, **kept, DETACHED: token},
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
    process.returncode = 0  # not ours to wait for: whoever adopts it reaps it
    deadline = time.monotonic() + 30
    while (found := find(folder)) is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise OSError(f"the command in {folder} did not begin within 30 s")
        time.sleep(0.001)
    return found


def find(folder: str) -> Detached | None:
    """The command whose files are in ``folder``; None where none was started."""
    try:
        with open(os.path.join(folder, "token")) as file:
            token, host, hostname = file.read().split()
        with open(os.path.join(folder, "id"), "rb") as file:
            pid, _, rest = file.read().partition(b" ")
            started = int(rest.rpartition(b") ")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return Detached(folder, token, int(pid), started, hostname, host)


def token_in(folder: str) -> str | None:
    """The mark of what was started there, or was about to be; None where nothing was."""
    try:
        with open(os.path.join(folder, "token")) as file:
            return file.read().partition(" ")[0] or None
    except OSError:
        return None


def exit_code(folder: str) -> int | None:
    """How the command ended, 128 + the number of a signal; None: it runs, or was killed itself."""
    try:
        with open(os.path.join(folder, "exit")) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def output_tail(folder: str, size: int) -> bytes:
    """The last ``size`` bytes of what it printed, or less."""
    try:
        with open(os.path.join(folder, OUTPUT), "rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            return file.read(size)
    except OSError:
        return b""


def is_detached(pid: int) -> bool:
    """Whether a process belongs to a detached command."""
    return _token_of(pid) is not None


def kill(token: str, grace_s: float) -> None:
    """End a command and all that it started: SIGTERM, and SIGKILL to what is left after a while.

    Args:
        token: its mark.
        grace_s: seconds between the two; 0: SIGKILL at once.
    """
    if grace_s > 0:
        deadline = time.monotonic() + grace_s
        left = _signal_all(token, signal.SIGTERM)
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = [pid for pid in left if _token_of(pid) == token]
    # What is found may fork before it dies, so look again until nothing is found.
    for _ in range(_ROUNDS):
        if not _signal_all(token, signal.SIGKILL):
            return


def remove(folder: str) -> None:
    """Delete its files."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _signal_all(token: str, number: signal.Signals) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _token_of(int(name)) == token:
            found.append(int(name))
            _signal(int(name), token, number)
    return found


def _signal(pid: int, token: str, number: signal.Signals) -> None:
    """Signal that very process: the mark is read again through a handle that pins the pid."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _token_of(pid) == token:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, number)
            if number == signal.SIGKILL:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(1000)
    finally:
        os.close(handle)


def _token_of(pid: int) -> str | None:
    _, found, rest = (b"\0" + read_environ(pid)).partition(b"\0" + DETACHED.encode() + b"=")
    return rest.partition(b"\0")[0].decode("ascii", "replace") if found else None
