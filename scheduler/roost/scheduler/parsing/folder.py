"""Finds DAG files and tells which of them changed, by stat alone (S3, S4)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import msgspec

__all__ = ["changed_files", "find_files", "is_candidate", "stamp_of"]

_Stamp = dict[str, tuple[int, int]]
_STAMP = msgspec.json.Decoder(_Stamp)


def find_files(folder: str) -> Iterator[str]:
    """Paths of all ``.py`` files below ``folder``, relative to it, in order.

    Hidden folders and ``__pycache__`` are left out. A folder that cannot be read counts as empty.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("."):
                yield os.path.relpath(os.path.join(place, name), folder)


def is_candidate(path: str) -> bool:
    """Safe mode: the bytes contain ``dag`` and (``roost`` or ``airflow``), in any case (S4)."""
    with open(path, "rb") as file:
        text = file.read().lower()
    return b"dag" in text and (b"roost" in text or b"airflow" in text)


def stamp_of(folder: str, fileloc: str, helpers: list[str]) -> str:
    """Time and size of a file and of the helpers it imported, as text to compare later."""
    return msgspec.json.encode(
        {path: _stat(os.path.join(folder, path)) for path in sorted({fileloc, *helpers})}
    ).decode()


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
