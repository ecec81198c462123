"""The helper modules of one version of a DAG file, imported from their kept texts (D23).

A parser keeps the text of every module below the DAGs folder that a file imported. A process that
runs several versions of the file side by side, as a trigger runner does, gives each version
modules of its own: while the file is loaded they stand in ``sys.modules``, afterwards they do not,
and each ``import`` statement in their code, also one in a function that runs much later, finds
those of its version. The limits: ``importlib.import_module`` and ``sys.modules`` know nothing of
them after the load, and a module that the parser's import of the file did not load is read from
the disk when it is first wanted.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

__all__ = ["Bundle", "Helpers"]

#: By module name: the file relative to the DAGs folder, and its text.
Helpers = Mapping[str, tuple[str, str]]

_PATIENCE_S = 10.0
# What stands in sys.modules is one process's: one version at a time is put there. Nobody waits for
# ever, since a file may hang while it is imported.
_present = threading.RLock()


class Bundle:
    """Modules of one version.

    Args:
        code_hash: of the version.
        folder: the DAGs folder, absolute.
        helpers: what is imported from memory.
    """

    def __init__(self, code_hash: str, folder: str, helpers: Helpers) -> None:
        self.code_hash = code_hash
        self._finder = _Finder(self, folder, helpers)
        self._roots = frozenset(name.partition(".")[0] for name in helpers)
        self._modules: dict[str, ModuleType] = {}
        self._thread = 0  # the one in which they stand in sys.modules
        #: ``__builtins__`` of every module of this version.
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}

    @contextmanager
    def present(self) -> Iterator[None]:
        """Let ``sys.modules`` hold the modules of this version, and imports find them."""
        locked = _present.acquire(timeout=_PATIENCE_S)
        try:
            before = self._take_out()
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self._finder)
            self._thread = threading.get_ident()
            try:
                yield
            finally:
                self._thread = 0
                sys.meta_path.remove(self._finder)
                self._modules = self._take_out()
                sys.modules.update(before)
        finally:
            if locked:
                _present.release()

    def _take_out(self) -> dict[str, ModuleType]:
        mine = [name for name in sys.modules if name.partition(".")[0] in self._roots]
        return {name: sys.modules.pop(name) for name in mine}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` of this version's code."""
        full = name
        if level:
            package = (globals or {}).get("__package__") or ""
            full = importlib.util.resolve_name("." * level + name, package)
        here = self._thread == threading.get_ident()
        if here or full.partition(".")[0] not in self._roots:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        # The common case first, without the lock: another version may be loading for seconds.
        found = self._modules.get(full)
        if found is not None:
            if not fromlist and not level:
                return self._modules[full.partition(".")[0]]
            if fromlist and all(hasattr(found, attribute) for attribute in fromlist):
                return found
        with self.present():
            return builtins.__import__(name, globals, locals, fromlist or (), level)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, bundle: Bundle, folder: str, helpers: Helpers) -> None:
        self._bundle = bundle
        self._helpers = {
            name: (os.path.join(folder, path), text) for name, (path, text) in helpers.items()
        }
        self._bare: dict[str, str] = {}  # packages without an __init__.py, and where they are
        for name, (path, _text) in self._helpers.items():
            place = os.path.dirname(path)
            if _is_package(path):
                place = os.path.dirname(place)
            while "." in name:
                name = name.rpartition(".")[0]
                if name not in self._helpers:
                    self._bare[name] = place
                place = os.path.dirname(place)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in self._helpers:
            file, text = self._helpers[fullname]
            return importlib.util.spec_from_file_location(
                fullname,
                file,
                loader=_Loader(self._bundle, file, text),
                submodule_search_locations=[os.path.dirname(file)] if _is_package(file) else None,
            )
        if fullname in self._bare:
            bare = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            bare.submodule_search_locations = [self._bare[fullname]]
            return bare
        return None


class _Loader(importlib.abc.ExecutionLoader):
    def __init__(self, bundle: Bundle, file: str, text: str) -> None:
        self._bundle = bundle
        self._file = file
        self._text = text

    def is_package(self, fullname: str) -> bool:
        return _is_package(self._file)

    def get_filename(self, fullname: str) -> str:
        return self._file

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self._file, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        lines = self._text.splitlines(keepends=True)
        # Without a time stamp the entry is never checked against the file, which may have changed.
        linecache.cache[self._file] = (len(self._text), None, lines, self._file)
        vars(module)["__builtins__"] = self._bundle.builtins
        exec(self.get_code(module.__name__), vars(module))  # noqa: S102 - as for any import


def _is_package(path: str) -> bool:
    return os.path.basename(path) == "__init__.py"
