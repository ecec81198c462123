"""Which trigger classes may be made from a stored name: checked by name before any import.

A class is known when it is one of Roost's own (:mod:`roost.triggers`), when an installed package
offers it as an entry point of the group ``roost.triggers``, or when a parser found it while it
imported the DAG file whose task deferred. A name outside these is refused without an import.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import linecache
import os
import re
import sys
from collections.abc import Collection
from types import ModuleType

from roost.dag.loader import LoadedFile
from roost.dag.trigger import BaseTrigger
from roost.exceptions import DagError

__all__ = ["Packages", "entry_point_sources", "is_known", "refusal", "resolve_trigger"]

ENTRY_POINT_GROUP = "roost.triggers"
_SOURCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_entry_points: frozenset[str] | None = None


def entry_point_sources() -> frozenset[str]:
    """Classes that installed packages offer in the entry-point group ``roost.triggers``."""
    global _entry_points
    if _entry_points is None:
        from importlib import metadata  # 40 modules that every task process would carry

        found = metadata.entry_points(group=ENTRY_POINT_GROUP)
        _entry_points = frozenset(point.value.replace(" ", "") for point in found)
    return _entry_points


def is_known(source: str, allowed: Collection[str]) -> bool:
    """Whether a class of this name may be imported. Imports nothing.

    Args:
        source: ``module:qualname``.
        allowed: the classes that the parsed DAG file listed.
    """
    if not _SOURCE.fullmatch(source):
        return False
    module = source.partition(":")[0]
    built_in = module == "roost.triggers" or module.startswith("roost.triggers.")
    return source in allowed or built_in or source in entry_point_sources()


def refusal(source: str, where: str) -> DagError:
    """The error for a class that is not known.

    Args:
        source: ``module:qualname``.
        where: the DAG file.
    """
    return DagError(
        f"trigger class {source!r} is not registered: import it at the top level of {where}, "
        f"or offer it in the entry-point group {ENTRY_POINT_GROUP!r}"
    )


class Packages:
    """Trigger classes of installed packages, new ones after the file of their module changed (D23).

    Whoever holds a class keeps it. Only the module that an entry point names is looked at: what it
    imports of its package stays as it was when it was imported first.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[int, ...], str, type[BaseTrigger]]] = {}

    def current(self, source: str) -> type[BaseTrigger] | None:
        """The class if it was found before and its file is as it was then. One stat()."""
        found = self._found.get(source)
        if found is None:
            return None
        stamp, _digest, cls = found
        return cls if _stamp(sys.modules.get(_module_of(source))) == stamp else None

    def find(self, source: str) -> type[BaseTrigger]:
        """The class as its file is now.

        Raises:
            DagError: it names no trigger class.
            Exception: whatever the module raises.
        """
        name = _module_of(source)
        module = sys.modules.get(name)
        stamp = _stamp(module)
        old = self._found.get(source)
        digest = _digest(module)
        if old is None or (old[1] != digest and digest):
            module = _fresh(name) if old is not None else importlib.import_module(name)
            cls = _class_in(module, source)
            stamp, digest = _stamp(module), _digest(module)
        else:
            cls = old[2]
        self._found[source] = (stamp, digest, cls)
        return cls


def _module_of(source: str) -> str:
    return source.partition(":")[0]


def _stamp(module: ModuleType | None) -> tuple[int, ...]:
    try:
        found = os.stat(getattr(module, "__file__", None) or "")
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _digest(module: ModuleType | None) -> str:
    """Of the module's file; empty when there is none to be read."""
    try:
        with open(getattr(module, "__file__", None) or "", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def _fresh(name: str) -> ModuleType:
    """Import a module anew, from its text: a cached compilation only knows whole seconds."""
    old = sys.modules.pop(name)
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return importlib.import_module(name)
        path = spec.loader.path
        module = importlib.util.module_from_spec(spec)
        code = compile(spec.loader.get_data(path), path, "exec", dont_inherit=True)
        linecache.checkcache(path)
        sys.modules[name] = module
        exec(code, vars(module))  # noqa: S102 - as the import would
    except BaseException:
        sys.modules[name] = old  # broken now: those that wait for it are told, the next try again
        raise
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return module


def resolve_trigger(
    source: str,
    allowed: Collection[str],
    loaded: LoadedFile | None,
    where: str = "the DAG file",
) -> type[BaseTrigger]:
    """The trigger class of this name.

    Args:
        source: ``module:qualname``, from ``DeferSpec.source``.
        allowed: the classes that the parsed DAG file listed (``ParsedFile.triggers``).
        loaded: the DAG file of the task, when it is loaded in this process. Its classes are
            taken as they are; None for built-in triggers and those of entry points.
        where: the DAG file, for the error.

    Raises:
        DagError: the name is in no registry, or does not name a trigger class.
    """
    if not is_known(source, allowed):
        raise refusal(source, where)
    if loaded is not None and source in loaded.triggers:
        return loaded.triggers[source]
    try:
        module = importlib.import_module(_module_of(source))
    except ImportError as error:
        raise DagError(f"trigger {source!r} cannot be found: {error}") from error
    return _class_in(module, source)


def _class_in(module: ModuleType, source: str) -> type[BaseTrigger]:
    target: object = module
    try:
        for part in source.partition(":")[2].split("."):
            target = getattr(target, part)
    except AttributeError as error:
        raise DagError(f"trigger {source!r} cannot be found: {error}") from error
    if not isinstance(target, type) or not issubclass(target, BaseTrigger):
        raise DagError(f"{source!r} is not a trigger class: it must subclass BaseTrigger")
    return target
