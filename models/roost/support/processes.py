"""Who a process is, beyond a pid that the system may give to another tomorrow."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

__all__ = ["Process", "host_id", "is_alive", "me", "start_ticks"]


class Process(NamedTuple):
    """One incarnation of a process.

    Attributes:
        host_id: boot id and pid namespace; equal only where pids mean the same.
        started: start time in clock ticks since boot, from ``/proc``.
        token: random mark of this incarnation, carried by all that descends from it.
    """

    hostname: str
    host_id: str
    pid: int
    started: int
    token: str


def host_id() -> str:
    """What two processes share when they see each other's pids: the boot and the pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.readlink('/proc/self/ns/pid')}"


def start_ticks(pid: int) -> int | None:
    """When the process started, in ticks since boot; None when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """True while that very process runs, not another one under its pid.

    Where ``/proc`` hides a living process (``hidepid``, systemd's ``ProtectProc=``, which hide a
    supervisor that has made itself undumpable even from its own user) this says True: its lease
    tells in the end, and a living peer must not be taken for dead.
    """
    ticks = start_ticks(pid)
    return ticks == started or (ticks is None and _is_hidden(pid))


def _is_hidden(pid: int) -> bool:
    if os.path.exists(f"/proc/{pid}"):
        return False  # a zombie: start_ticks() has looked
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def me() -> Process:
    """This process as a new incarnation."""
    started = start_ticks(os.getpid())
    assert started is not None  # noqa: S101 - we are running
    return Process(socket.gethostname(), host_id(), os.getpid(), started, uuid4().hex)
