"""The zip file of a DAG package: what is in it, and whether it may be one (S13, S15)."""

from __future__ import annotations

import io
import re
import zipfile
import zlib

from roost.exceptions import DagError

__all__ = ["PYTHON", "Archive", "what_is_wrong"]

_MAX_BYTES = 10 << 20  # base64 and JSON must fit into one parse result
_MAX_UNPACKED = 256 << 20
_MAX_MEMBERS = 10_000
_LIBRARY = re.compile(r"\.(so|dylib|pyd|dll)(\.\d+)*$", re.IGNORECASE)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
PYTHON = (".py", ".pyc")


class Archive:
    """A zip of Python code, checked, in memory.

    Args:
        path: where it is, absolute; for names and messages, it is not read.
        data: its bytes.

    Raises:
        DagError: it is no zip, too large, or holds what no package may; the message says what.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        if len(data) > _MAX_BYTES:
            raise DagError(f"{path}: is {len(data) >> 20} MiB; a DAG package has at most 10 MiB")
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
        except _BROKEN as error:
            raise _broken(path, error) from None
        self.names = frozenset(_checked(path, self.zip.infolist()))

    @classmethod
    def read(cls, path: str) -> Archive:
        """The archive that the file at ``path`` holds now."""
        with open(path, "rb") as file:
            return cls(path, file.read(_MAX_BYTES + 1))

    def roots(self) -> list[str]:
        """Members at the root that are DAG files; of a module that is there twice, the source."""
        found = {name for name in self.names if "/" not in name and name.endswith(PYTHON)}
        return sorted(name for name in found if name.endswith(".py") or name[:-1] not in found)

    def member(self, name: str) -> bytes:
        """The content of one member.

        Raises:
            DagError: it is not there, or damaged.
        """
        try:
            return self.zip.read(name)
        except KeyError:
            raise DagError(f"{self.path}: holds no {name}") from None
        except _BROKEN as error:
            raise _broken(self.path, error) from None

    def verify(self) -> None:
        """Read everything once, so that damage is met now and not by a task."""
        for info in self.zip.infolist():
            try:
                with self.zip.open(info) as stream:
                    while stream.read(1 << 20):
                        pass
            except _BROKEN as error:
                raise _broken(self.path, error) from None


def _broken(path: str, error: BaseException) -> DagError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DagError(f"{path}: not a zip file, or damaged ({reason}); build or copy it again")


def _checked(path: str, infos: list[zipfile.ZipInfo]) -> list[str]:
    if len(infos) > _MAX_MEMBERS:
        raise DagError(f"{path}: holds {len(infos)} files; a DAG package has at most 10,000")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > _MAX_UNPACKED:
        raise DagError(f"{path}: unpacks to {unpacked >> 20} MiB; a DAG package has at most 256")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if name in seen:
            raise DagError(f"{path}: holds {name!r} twice; build it again")
        seen.add(name)
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
            raise DagError(f"{path}: member {name!r} lies outside the archive; build it again")
        if info.flag_bits & 1:
            raise DagError(f"{path}: member {name!r} is encrypted; a DAG package must not be")
        if _LIBRARY.search(name):
            raise DagError(
                f"{path}: {name} is a dynamic library, which cannot be loaded from a zip; "
                "install the package that it belongs to where the workers run"
            )
    return [name for name in seen if not name.endswith("/")]


def what_is_wrong(path: str) -> DagError:
    """The error of the archive at ``path``, which was broken a moment ago."""
    try:
        Archive.read(path).verify()
    except DagError as error:
        return error
    return DagError(f"{path}: was broken and has just been mended; it is parsed again")
