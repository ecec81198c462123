"""What Linux tells about changes in folders: a thin wrapper over inotify's three calls.

Not told: what others change on a network file system, and what lies deeper than the folder.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

__all__ = ["AWAY", "GONE", "OVERFLOW", "add", "events", "open_queue", "remove"]

GONE = 0x00008000
"""The folder is not watched any more: it was deleted, or its file system unmounted."""
AWAY = 0x00000C00 | GONE
"""Any way in which a folder stops being what its name means."""
OVERFLOW = 0x00004000
"""More has happened than the kernel kept."""

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x4, 0x400, 0x800
_ONLYDIR = 0x01000000
_MASK = (
    _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ATTRIB | _DELETE_SELF
    | _MOVE_SELF | _ONLYDIR
)  # fmt: skip
_HEAD = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


def open_queue() -> int:
    """A descriptor that becomes readable when something has happened in a watched folder.

    Raises:
        OSError: there are too many already, or this is no Linux.
    """
    try:
        fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    except AttributeError:
        raise OSError("there is no inotify here") from None
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify is not available")
    return fd


def add(fd: int, folder: str) -> int:
    """Watch a folder; gives its number, the same one for each name of the same folder.

    Raises:
        OSError: it is no folder, cannot be read, or too many are watched.
    """
    number = int(_libc.inotify_add_watch(fd, os.fsencode(folder), _MASK))
    if number < 0:
        raise OSError(ctypes.get_errno(), "it cannot be watched", folder)
    return number


def remove(fd: int, number: int) -> None:
    """Watch it no more."""
    _libc.inotify_rm_watch(fd, number)


def events(fd: int) -> Iterator[tuple[int, int, str]]:
    """All that has happened: the number of the folder, what, and to which name in it."""
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _cookie, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            yield number, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
