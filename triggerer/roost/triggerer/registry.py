"""Which trigger classes a runner may make, found by name before anything is imported.

A class is known when it is one of Roost's own (:mod:`roost.triggers`), when an installed package
offers it as an entry point of the group ``roost.triggers``, or when a parser found it while it
imported the DAG file whose task deferred. A name outside these is refused without an import.

DAG files are executed from the text that the database keeps, once for each version, in a thread
of their own: a file that takes seconds to import must not keep other triggers from turning.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import roost.triggers
from roost.dag.loader import load_dag_file
from roost.dag.trigger import BaseTrigger, source_of
from roost.exceptions import RoostException
from roost.triggerer.case import Case
from roost.triggerer.messages import Source

__all__ = ["Registry"]

_LOAD_S = 60.0
_GROUP = "roost.triggers"


class Registry:
    """Finds classes for one runner.

    Args:
        dags_folder: absolute; DAG files and their helper modules are imported from below it.
    """

    def __init__(self, dags_folder: str) -> None:
        self._folder = Path(dags_folder)
        self._sources: dict[str, Source] = {}
        self._found: dict[tuple[str, str], type[BaseTrigger]] = {}
        self._loaded: dict[str, dict[str, type[BaseTrigger]]] = {}
        self._finding: dict[tuple[str, str], asyncio.Future[type[BaseTrigger]]] = {}
        self._own = {source_of(cls): cls for cls in _own_classes()}
        self._offered: frozenset[str] | None = None
        # One thread: two versions of a file must not be imported at the same time.
        self._loader = ThreadPoolExecutor(1, "dag-file")

    def add(self, source: Source) -> None:
        """Keep one version of a DAG file; it is executed when a trigger needs it."""
        self._sources[source.code_hash] = source

    async def resolve(self, case: Case) -> type[BaseTrigger]:
        """The class of a trigger.

        Raises:
            RoostException: the name is not registered, or names no trigger class.
            TimeoutError: the DAG file took longer than a minute to import.
            Exception: whatever the DAG file raised while it was imported.
        """
        own = self._own.get(case.source)
        if own is not None:
            return own
        key = (case.code_hash, case.source)
        found = self._found.get(key)
        if found is not None:
            return found
        finding = self._finding.get(key)
        if finding is None:
            loop = asyncio.get_running_loop()
            finding = loop.run_in_executor(self._loader, self._find, case)
            self._finding[key] = finding
        loader = self._loader
        # wait() leaves the future alone when this trigger is cancelled: others wait for it too.
        done, _ = await asyncio.wait((finding,), timeout=_LOAD_S)
        if not done:
            if self._loader is loader:  # it hangs in there: others get a thread of their own
                self._loader = ThreadPoolExecutor(1, "dag-file")
            raise TimeoutError(f"importing the code of {case.source} took over {_LOAD_S:g} s")
        self._finding.pop(key, None)
        cls = self._found[key] = finding.result()
        return cls

    def _find(self, case: Case) -> type[BaseTrigger]:
        """Check the name, then import. Runs in the loader's thread."""
        source = self._sources.get(case.code_hash)
        if source is not None and case.source in source.triggers:
            return self._load(source)[case.source]
        if case.source in self._entry_points():
            return _import(case.source)
        where = "its DAG file" if source is None else source.fileloc
        raise RoostException(
            f"trigger class {case.source} is not registered: define or import it in {where}, or "
            f"offer it as an entry point of the group {_GROUP}"
        )

    def _load(self, source: Source) -> dict[str, type[BaseTrigger]]:
        classes = self._loaded.get(source.code_hash)
        if classes is None:
            path = str(self._folder / source.fileloc)
            loaded = load_dag_file(path, source.source, str(self._folder), with_policy=False)
            classes = loaded.triggers
            self._loaded[source.code_hash] = classes
        return classes

    def _entry_points(self) -> frozenset[str]:
        if self._offered is None:
            self._offered = frozenset(entry.value for entry in entry_points(group=_GROUP))
        return self._offered


def _own_classes() -> list[type[BaseTrigger]]:
    offered = vars(roost.triggers).values()
    return [cls for cls in offered if isinstance(cls, type) and issubclass(cls, BaseTrigger)]


def _import(source: str) -> type[BaseTrigger]:
    module_name, _, qualname = source.partition(":")
    found: object = importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseTrigger)):
        raise RoostException(f"{source} is not a subclass of BaseTrigger")
    return found
