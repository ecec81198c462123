"""What the suite wants to know about processes, from /proc; only ever about our own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

__all__ = ["descendants", "kill_leftovers", "with_environment"]

_Identity = tuple[int, int]  # pid and start time: tells a reused pid from the same process


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time of a process that lives; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


def _living() -> dict[int, tuple[int, int]]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid: found for pid in pids if (found := _stat(pid))}


def descendants(pid: int) -> set[_Identity]:
    """Every live process below ``pid``, without it."""
    living = _living()
    found: set[_Identity] = set()
    parents = {pid}
    while parents:
        parents = {child for child, (parent, _) in living.items() if parent in parents}
        parents -= {known for known, _ in found}
        found |= {(child, living[child][1]) for child in parents}
    return found


def with_environment(entry: str) -> set[_Identity]:
    """Every live process that was started with ``NAME=value`` in its environment, but us."""
    wanted = entry.encode()
    found: set[_Identity] = set()
    for pid, (_, start) in _living().items():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(
                b"\0"
            ):
                found.add((pid, start))
    return found


def kill_leftovers(suspects: set[_Identity]) -> list[str]:
    """SIGKILL those that still live and wait for their end; returns their command lines."""
    killed = []
    for pid, start in sorted(suspects):
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                found = _stat(pid)
                if found is None or found[1] != start:
                    continue
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], 10)
                killed.append(f"{pid}: {command.strip()}")
            finally:
                os.close(handle)
    return killed
