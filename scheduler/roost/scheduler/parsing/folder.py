"""Finds DAG files and tells which of them changed, by stat alone (S3, S4)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

import msgspec

__all__ = ["changed_files", "file_clock", "find_files", "is_candidate", "stamp_of"]

_Stamp = dict[str, tuple[int, int]]
_NEVER = (-1, -1)
_CLOCK_REALTIME_COARSE = 5  # of linux/time.h; Python has no name for it
_STAMP = msgspec.json.Decoder(_Stamp)


def find_files(folder: str) -> Iterator[str]:
    """Paths of all ``.py`` files below ``folder``, relative to it, in order.

    Hidden folders and ``__pycache__`` are left out, and names that are not UTF-8. A folder that
    cannot be read counts as empty.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
        for name in sorted(names):
            path = os.path.relpath(os.path.join(place, name), folder)
            if name.endswith(".py") and not name.startswith(".") and _is_text(path):
                yield path


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_candidate(path: str) -> bool:
    """Safe mode: the bytes contain ``dag`` and (``roost`` or ``airflow``), in any case (S4)."""
    with open(path, "rb") as file:
        text = file.read().lower()
    return b"dag" in text and (b"roost" in text or b"airflow" in text)


def stamp_of(folder: str, fileloc: str, helpers: list[str], *, read_at_ns: int) -> str:
    """Time and size of a file and of the helpers it imported, as text to compare later.

    Args:
        folder: the DAGs folder.
        fileloc: the file.
        helpers: what it imported.
        read_at_ns: by :func:`file_clock`, before any of them was read. One that was written
            since may have been read as it was before: its stamp never matches.
    """
    stamp: _Stamp = {}
    for path in sorted({fileloc, *helpers}):
        place = os.path.join(folder, path)
        stamp[path] = _NEVER if _written_since(place, read_at_ns) else _stat(place)
    return msgspec.json.encode(stamp).decode()


def file_clock() -> int:
    """Nanoseconds of the clock that file systems stamp changes with."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def _written_since(path: str, moment_ns: int) -> bool:
    # The time of change, not of modification: a file moved here keeps its old mtime.
    try:
        return os.stat(path).st_ctime_ns >= moment_ns
    except OSError:
        return False


def changed_files(folder: str, known: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Compare the folder with what was parsed.

    Args:
        folder: the DAGs folder.
        known: stamp by path of every file that was looked at before.

    Returns:
        ``(changed or new, gone)``, both in order.
    """
    found = list(find_files(folder))
    changed = [path for path in found if not _unchanged(folder, known.get(path, ""))]
    return changed, sorted(known.keys() - set(found))


def _unchanged(folder: str, stamp: str) -> bool:
    if not stamp:
        return False
    noted = _STAMP.decode(stamp)
    return all(_stat(os.path.join(folder, path)) == was for path, was in noted.items())


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (0, -1)
    return (stat.st_mtime_ns, stat.st_size)
