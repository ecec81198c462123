"""DAG packages in a process that runs them: their text, and imports from it (S13, S14).

A package travels as bytes, never as a path: its text in the database is the whole archive, so a
run keeps its version when the file is replaced or deleted. A process that loads a DAG of it
imports from memory, under the names that the files have below the archive.
"""

from __future__ import annotations

import base64
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import zipfile
from importlib.resources.abc import TraversableResources
from types import CodeType, ModuleType
from typing import NamedTuple

from roost.dag.archive import PYTHON, Archive
from roost.exceptions import DagError

__all__ = ["MARK", "Member", "mount", "mounted", "pack", "place_of", "unmount"]

#: First characters of the kept text of a package; no Python file begins so.
MARK = "!roost-zip "


class Member(NamedTuple):
    """A DAG file inside an archive. ``code`` is set for a compiled one."""

    archive: Archive
    data: bytes
    code: CodeType | None


def place_of(path: str) -> tuple[str, str] | None:
    """The archive and the name of the member that ``path`` denotes; None: it denotes none."""
    archive, name = os.path.split(path)
    return (archive, name) if archive.endswith(".zip") and os.path.isfile(archive) else None


def pack(path: str) -> str:
    """The text that stands for the member ``path`` of an archive: all of the archive.

    Raises:
        DagError: the archive is broken.
        OSError: it cannot be read.
    """
    archive_path, name = os.path.split(path)
    archive = Archive.read(archive_path)
    archive.verify()
    return f"{MARK}{name}\n{base64.b64encode(archive.data).decode()}"


def mount(path: str, source: str) -> Member:
    """Put the archive in ``source`` at the beginning of ``sys.path`` (S14).

    Archives that were mounted before go to its end: their code may still import from them, but
    they hide nothing any more.

    Args:
        path: of the member, absolute.
        source: by :func:`pack`.
    """
    head, _, body = source.partition("\n")
    archive = Archive(os.path.dirname(path), base64.b64decode(body))
    unmount()
    _mounted[archive.path] = archive
    if _find not in sys.path_hooks:
        sys.path_hooks.insert(0, _find)
    for place in list(sys.path_importer_cache):
        if place == archive.path or place.startswith(f"{archive.path}/"):
            del sys.path_importer_cache[place]
    if archive.path in sys.path:
        sys.path.remove(archive.path)
    sys.path.insert(0, archive.path)
    data = archive.member(head.removeprefix(MARK))
    return Member(archive, data, _compiled(path, data) if path.endswith(".pyc") else None)


def unmount() -> None:
    """Let no archive stand before other entries of ``sys.path``."""
    for place in _mounted:
        if place in sys.path:
            sys.path.remove(place)
            sys.path.append(place)


def mounted(place: str) -> Archive | None:
    """The archive at ``place`` as this process runs it, or None."""
    return _mounted.get(place)


class _Sourceless(importlib.machinery.SourcelessFileLoader):
    """Python's own reader of compiled code, on bytes."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__("compiled", path)
        self._data = data

    def get_data(self, path: str) -> bytes:
        return self._data


def _compiled(path: str, data: bytes) -> CodeType:
    """The code in a ``.pyc``: what its author wrote either way, no more to be feared compiled."""
    if data[:4] != importlib.util.MAGIC_NUMBER:
        version = ".".join(map(str, sys.version_info[:2]))
        raise DagError(f"{path}: was not compiled by Python {version}; put in its source instead")
    try:
        code = _Sourceless(path, data).get_code("compiled")
    except (ImportError, ValueError, EOFError, TypeError):
        code = None
    if code is None:
        raise DagError(f"{path}: is not a compiled Python file; put in its source instead")
    return code


# ---------------------------------------------------------------------- imports from memory

_mounted: dict[str, Archive] = {}


def _find(place: str) -> _Finder:
    for path, archive in _mounted.items():
        if place == path:
            return _Finder(archive, "")
        if place.startswith(f"{path}/"):
            return _Finder(archive, f"{place[len(path) + 1 :]}/")
    raise ImportError(f"{place} is not in a DAG package")


class _Finder(importlib.abc.PathEntryFinder):
    """Finds the modules of one folder of an archive."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive = archive
        self._folder = folder

    def find_spec(
        self, fullname: str, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's place in the archive, if it is there."""
        base = self._folder + fullname.rpartition(".")[2]
        inner = f"{self._archive.path}/{base}"
        for name, is_package in (
            *((f"{base}/__init__{suffix}", True) for suffix in PYTHON),
            *((f"{base}{suffix}", False) for suffix in PYTHON),
        ):
            if name in self._archive.names:
                loader = _Loader(self._archive, name, is_package)
                return importlib.util.spec_from_file_location(
                    fullname,
                    f"{self._archive.path}/{name}",
                    loader=loader,
                    submodule_search_locations=[inner] if is_package else None,
                )
        if any(name.startswith(f"{base}/") for name in self._archive.names):
            bare = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            bare.submodule_search_locations = [inner]
            return bare
        return None


class _Loader(importlib.abc.ExecutionLoader):
    """Loads one module of an archive."""

    def __init__(self, archive: Archive, name: str, is_package: bool) -> None:
        self._archive = archive
        self._name = name
        self._is_package = is_package

    def is_package(self, fullname: str) -> bool:
        """Whether it is a package."""
        return self._is_package

    def get_filename(self, fullname: str) -> str:
        """Its path, as if the archive were a folder."""
        return f"{self._archive.path}/{self._name}"

    def get_source(self, fullname: str) -> str | None:
        """Its text, for tracebacks; None when only compiled code is there."""
        if self._name.endswith(".pyc"):
            return None
        return importlib.util.decode_source(self._archive.member(self._name))

    def get_code(self, fullname: str) -> CodeType | None:
        """Its code."""
        data = self._archive.member(self._name)
        path = self.get_filename(fullname)
        return _compiled(path, data) if path.endswith(".pyc") else self.source_to_code(data, path)

    def get_data(self, path: str) -> bytes:
        """A file of the archive, for ``pkgutil.get_data``."""
        inner = path.removeprefix(f"{self._archive.path}/")
        if inner not in self._archive.names:
            raise FileNotFoundError(path)
        return self._archive.member(inner)

    def get_resource_reader(self, fullname: str) -> TraversableResources:
        """For ``importlib.resources``."""
        return _Resources(self._archive, os.path.dirname(self._name))


class _Resources(TraversableResources):
    def __init__(self, archive: Archive, folder: str) -> None:
        self._root = zipfile.Path(archive.zip, f"{folder}/" if folder else "")

    def files(self) -> zipfile.Path:
        return self._root
