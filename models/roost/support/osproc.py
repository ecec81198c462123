"""What the daemons ask of Linux for the processes below them: who dies with whom, and who is left.

Thin wrappers over ``prctl`` and ``/proc``. Everything here is cheap enough to be called in a
process that was forked a moment ago.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

__all__ = [
    "adopt_orphans",
    "boot_us",
    "children",
    "describe_exit",
    "die_with_parent",
    "environ_address",
    "hide_memory",
    "kill_group",
    "mark_environ",
    "read_environ",
    "rename",
]

_SIGKILL = int(signal.SIGKILL)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_DIE = ctypes.c_ulong(_SIGKILL)
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl


def _set(option: int, value: int, what: str) -> None:
    # The usual argument is made already: a task process, just forked, pays for each object.
    number = _DIE if value == _SIGKILL else ctypes.c_ulong(value)
    if _prctl(option, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl could not {what}")


def die_with_parent(parent: int, number: int = _SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends, however the parent ends.

    The signal follows the *thread* that forked: call this in children of a main thread only. A
    parent that is gone already is noticed here, and the process exits at once.

    Args:
        parent: the pid that forked this process.
        number: the signal.
    """
    _set(_PR_SET_PDEATHSIG, number, "bind this process to its parent")
    if os.getppid() != parent:
        os._exit(1)


def rename(name: str) -> None:
    """Show this process as ``name`` (15 bytes at most) in ``ps`` and ``top``."""
    buffer = ctypes.create_string_buffer(name.encode())
    _set(_PR_SET_NAME, ctypes.addressof(buffer), "rename this process")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (a subreaper)."""
    _set(_PR_SET_CHILD_SUBREAPER, 1, "make this process a subreaper")


def hide_memory() -> None:
    """Keep this process's memory and environment from others of the same user (no ptrace).

    A daemon that holds the database URL calls it, so that the tasks it starts cannot read the
    URL from ``/proc``. It also turns core dumps off.
    """
    _set(_PR_SET_DUMPABLE, 0, "hide the memory of this process")


def boot_us() -> int:
    """Microseconds of CLOCK_BOOTTIME: runs through suspends, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def describe_exit(status: int) -> str:
    """A wait status in words: ``killed by signal 9 (maybe out of memory)``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    if code == -signal.SIGKILL:
        return "killed by signal 9 (maybe out of memory)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"killed by signal {-code}"
    return f"killed by signal {-code} ({name})"


def kill_group(pid: int) -> None:
    """SIGKILL the process group that ``pid`` leads, if there still is one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def children() -> list[int] | None:
    """The pids of this process's children, adopted ones too; None where the kernel cannot say."""
    pid = os.getpid()
    try:
        # A bare descriptor: this is done after each task.
        listing = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = b""
        while chunk := os.read(listing, 65536):
            found += chunk
    except OSError:
        return None
    finally:
        os.close(listing)
    return [int(word) for word in found.split()]


def read_environ(pid: int) -> bytes:
    """The initial environment of a process; empty when it is gone or of another user."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
            parts = []
            while chunk := environ.read(65536):
                parts.append(chunk)
    except OSError:
        return b""
    return b"".join(parts)


def environ_address(name: bytes) -> int:
    """Where in memory the value of ``name`` stands in this process's initial environment.

    The address holds in every fork, which lets a fork label itself in ``/proc/<pid>/environ``
    without an exec (:func:`mark_environ`). Returns 0 when the variable is not there.
    """
    with open("/proc/self/stat", "rb", buffering=0) as stat:
        fields = stat.read(4096).rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end
    block = ctypes.string_at(start, end - start) if 0 < start < end else b""
    at = (b"\0" + block).find(b"\0" + name + b"=")
    return start + at + len(name) + 1 if at >= 0 else 0


def mark_environ(address: int, value: bytes) -> None:
    """Overwrite an initial environment value in place with one of the same length."""
    if address:
        ctypes.memmove(address, value, len(value))
