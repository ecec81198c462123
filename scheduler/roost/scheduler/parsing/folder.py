"""Finds DAG files and tells which of them changed, by stat alone (S3, S4, S13-S18)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from roost.dag.ignore import IGNORE_FILES, IgnoreSyntax, Rules, read_rules
from roost.dag.loader import MAX_SOURCE
from roost.exceptions import DagError

__all__ = ["changed_files", "content", "file_clock", "find_files", "is_candidate", "stamp_of"]

_Stamp = dict[str, tuple[int, int]]
_Scope = tuple[int, Rules]  # how much of a path lies above the ignore file, and what that says
_Scopes = tuple[_Scope, ...]
_NEVER = (-1, -1)
_CLOCK_REALTIME_COARSE = 5  # of linux/time.h; Python has no name for it
_STAMP = msgspec.json.Decoder(_Stamp)


def find_files(folder: str, syntax: IgnoreSyntax = "regexp") -> Iterator[str]:
    """Paths of all DAG files below ``folder``, relative to it, in order.

    These are ``.py`` files and, as ``package.zip/dags.py``, the modules at the root of zip files
    (S13). Hidden names and ``__pycache__`` are left out, what ignore files say (S16-S18), and
    names that are not UTF-8. Links are followed; a folder is searched once. A folder that cannot
    be read counts as empty. A broken zip or ignore file is itself in the list: parsing it tells
    what is wrong.
    """
    seen = {_identity(folder)}
    stack: list[tuple[str, _Scopes]] = [("", ())]
    while stack:
        inner, scopes = stack.pop()
        files, folders = _entries(os.path.join(folder, inner))
        for name in IGNORE_FILES:
            if name in files:
                scope, broken = _scope(folder, inner, name, syntax)
                scopes = (*scopes, scope)
                if broken:
                    yield inner + name
        for name in files:
            if _is_wanted(name) and not _ignored(inner + name, scopes, is_folder=False):
                yield from _modules(folder, inner + name)
        below = [
            f"{inner}{name}/"
            for name in folders
            if not name.startswith((".", "__pycache__"))
            and not _ignored(inner + name, scopes, is_folder=True)
        ]
        new = [path for path in below if _first(os.path.join(folder, path), seen)]
        stack.extend((path, scopes) for path in reversed(new))


def _first(place: str, seen: set[tuple[int, int]]) -> bool:
    """Whether the folder was not there yet under another name; notes it."""
    identity = _identity(place)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _is_wanted(name: str) -> bool:
    return name.endswith((".py", ".zip")) and not name.startswith(".") and _is_text(name)


def _entries(place: str) -> tuple[list[str], list[str]]:
    """Names of regular files and of folders, each in order."""
    files, folders = [], []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        files.append(entry.name)
                    elif entry.is_dir():
                        folders.append(entry.name)
                except OSError:  # a link in a circle, or gone meanwhile
                    continue
    except OSError:
        return [], []
    return sorted(files), sorted(folders)


def _identity(place: str) -> tuple[int, int]:
    try:
        stat = os.stat(place)
    except OSError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)


def _scope(folder: str, inner: str, name: str, syntax: IgnoreSyntax) -> tuple[_Scope, bool]:
    try:
        rules = read_rules(os.path.join(folder, inner, name), syntax)
    except OSError:  # gone again, or not for us to read
        rules = Rules((), ())
    return (len(inner), rules), bool(rules.errors)


def _ignored(path: str, scopes: _Scopes, *, is_folder: bool) -> bool:
    """The innermost ignore file that says anything decides."""
    for length, rules in reversed(scopes):
        verdict = rules.verdict(path[length:], is_folder)
        if verdict is not None:
            return verdict
    return False


def _modules(folder: str, path: str) -> Iterator[str]:
    """The file itself, or the DAG files in it if it is an archive that is not broken."""
    if not path.endswith(".zip"):
        yield path
        return
    place = os.path.join(folder, path)
    try:
        stat = os.stat(place)
        roots = _roots(place, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return
    yield from (f"{path}/{name}" for name in roots) if roots is not None else (path,)


@lru_cache(maxsize=1024)
def _roots(place: str, _mtime_ns: int, _size: int) -> tuple[str, ...] | None:
    # Imported late: many folders hold no zip.
    from roost.dag.archive import Archive

    try:
        return tuple(Archive.read(place).roots())
    except DagError:
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_candidate(path: str) -> bool:
    """Safe mode: the bytes contain ``dag`` and (``roost`` or ``airflow``), in any case (S4).

    In an archive each module is judged by itself. A broken archive or ignore file is a candidate.

    Raises:
        OSError: it cannot be read.
    """
    if not path.endswith((".py", ".pyc")):
        return True
    text = content(path).lower()
    return b"dag" in text and (b"roost" in text or b"airflow" in text)


def content(path: str) -> bytes:
    """The bytes of a DAG file, also of one in an archive; empty where that is broken.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_SOURCE)
    except NotADirectoryError:
        from roost.dag.archive import Archive  # late, as above

        archive, name = os.path.split(path)
        try:
            return Archive.read(archive).member(name)
        except DagError:
            return b""


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
        return _stat_file(path).st_ctime_ns >= moment_ns
    except OSError:
        return False


def changed_files(
    folder: str, known: Mapping[str, str], syntax: IgnoreSyntax = "regexp"
) -> tuple[list[str], list[str]]:
    """Compare the folder with what was parsed.

    Args:
        folder: the DAGs folder.
        known: stamp by path of every file that was looked at before.
        syntax: of ignore files.

    Returns:
        ``(changed or new, gone)``, both in order.
    """
    found = list(find_files(folder, syntax))
    changed = [path for path in found if not _unchanged(folder, known.get(path, ""))]
    return changed, sorted(known.keys() - set(found))


def _unchanged(folder: str, stamp: str) -> bool:
    if not stamp:
        return False
    noted = _STAMP.decode(stamp)
    return all(_stat(os.path.join(folder, path)) == was for path, was in noted.items())


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = _stat_file(path)
    except OSError:
        return (0, -1)
    return (stat.st_mtime_ns, stat.st_size)


def _stat_file(path: str) -> os.stat_result:
    """Of the file, or of the archive that it is in."""
    try:
        return os.stat(path)
    except NotADirectoryError:
        return os.stat(os.path.dirname(path))
