"""The trigger classes of one runner: which may be made, :mod:`roost.dag.registry` says by name.

DAG files are executed from the text that the database keeps, with their helper modules as they
were when it was parsed, once for each version, in a thread of their own: a file that takes
seconds to import must not keep other triggers from turning. So a trigger ends on the code that its
task deferred with, also in the next runner, and the next deferral uses the edited code (D23).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import roost.triggers
from roost.dag.loader import LoadedFile, load_dag_file
from roost.dag.registry import (
    Packages,
    entry_point_sources,
    is_known,
    refusal,
    resolve_trigger,
)
from roost.dag.trigger import BaseTrigger, source_of
from roost.exceptions import RoostException
from roost.triggerer.bundle import Bundle
from roost.triggerer.case import Case
from roost.triggerer.importing import importing, where_in
from roost.triggerer.messages import Source
from roost.triggerer.starting import Renderers, needs_dag, render_start

__all__ = ["Registry"]

_LOAD_S = 60.0


class _Finding:
    """One import, for all that want the same at a time; it may wait for others to be over.

    Args:
        get: what is to be done in the loader's thread.
    """

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get
        self.future: asyncio.Future[Any]
        self.began: float | None = None
        self.thread: int | None = None

    def run(self) -> Any:
        """Do it."""
        self.thread, self.began = threading.get_ident(), time.monotonic()
        return self._get()

    def left_s(self) -> float:
        """Seconds until it has taken too long."""
        return _LOAD_S - (0.0 if self.began is None else time.monotonic() - self.began)


class Registry:
    """Finds classes for one runner.

    Args:
        dags_folder: absolute; DAG files and their helper modules are imported from below it.
    """

    def __init__(self, dags_folder: str) -> None:
        self._folder = Path(dags_folder)
        self._sources: dict[str, Source] = {}
        self._loaded: dict[str, LoadedFile] = {}
        self._finding: dict[tuple[str, str], _Finding] = {}
        self._first: _Finding | None = None  # what the loader is at
        self._renderers = Renderers()
        self._own = {source_of(cls): cls for cls in _own_classes()}
        self._packages = Packages()
        # One thread: two versions of a file must not be imported at the same time.
        self._loader = ThreadPoolExecutor(1, "dag-file")

    def add(self, source: Source) -> None:
        """Keep one version of a DAG file; it is executed when a trigger needs it."""
        self._sources[source.code_hash] = source

    def forget(self, code_hashes: Iterable[str]) -> None:
        """Let versions go that no trigger needs; their classes live on in what still runs."""
        for code_hash in code_hashes:
            self._sources.pop(code_hash, None)
            self._loaded.pop(code_hash, None)

    async def resolve(self, case: Case) -> type[BaseTrigger]:
        """The class of a trigger.

        Raises:
            DagError: the name is not registered, or names no trigger class.
            TimeoutError: the DAG file took longer than a minute to import.
            Exception: whatever the DAG file raised while it was imported.
        """
        own = self._own.get(case.source)
        if own is not None:
            return own
        found = self._packages.current(case.source)
        if found is None:
            loaded = self._loaded.get(case.code_hash)
            found = None if loaded is None else loaded.triggers.get(case.source)
        # While some still wake from waiting for it, who comes now is behind them (D16).
        if found is not None and (case.code_hash, case.source) not in self._finding:
            return found
        cls: type[BaseTrigger] = await self._import(case, case.source, self._get)
        return cls

    async def arguments(self, case: Case) -> dict[str, Any]:
        """The arguments of a trigger that its task starts in, rendered (D12).

        Raises:
            RoostException: a template is wrong.
            TimeoutError: importing the DAG file, or rendering, took longer than a minute.
            Exception: whatever the DAG file raised while it was imported.
        """
        start = case.start
        if start is None:
            return {}
        dag = None
        if needs_dag(start):
            loaded: LoadedFile = self._loaded.get(case.code_hash) or await self._import(
                case, "", self._get_file
            )
            dag = loaded.dags.get(case.dag_id)
            if dag is None:
                raise RoostException(f"its DAG file holds no DAG {case.dag_id!r}")
        return await self._renderers.run(partial(render_start, start, dag))

    async def _import(self, case: Case, what: str, get: Callable[[Case], Any]) -> Any:
        """``get(case)`` in the loader's thread, once for all that want the same at a time.

        Raises:
            TimeoutError: it took longer than a minute, not counting what it waited for others.
        """
        key = (case.code_hash, what)
        while True:
            finding = self._finding.get(key)
            if finding is None:
                finding = self._finding[key] = _Finding(partial(self._noted, case, get))
                loop = asyncio.get_running_loop()
                finding.future = loop.run_in_executor(self._loader, self._begin, finding)
            first = finding if finding.began is not None else self._first or finding
            # wait() leaves the future alone when this trigger is cancelled: others wait for it.
            await asyncio.wait((finding.future,), timeout=max(0.0, first.left_s()))
            if finding.future.done():
                if self._finding.get(key) is finding:
                    del self._finding[key]
                if not finding.future.cancelled():
                    return finding.future.result()
            elif finding.began is not None and finding.left_s() <= 0:
                self._pass_by(finding)
                where = where_in(finding.thread)
                raise TimeoutError(
                    f"importing the code of {case.source} took over {_LOAD_S:g} s"
                    + (f", at {where}" if where else "")
                )
            elif first.left_s() <= 0:
                self._pass_by(first)

    def _begin(self, finding: _Finding) -> Any:
        self._first = finding
        try:
            return finding.run()
        finally:
            if self._first is finding:
                self._first = None

    def _pass_by(self, hung: _Finding) -> None:
        """Give what waits for one that hangs to a thread of its own."""
        if self._first is not hung:
            return  # somebody has done so
        self._first = None
        # Those that are cancelled with this are asked for again by whoever waits for them.
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._loader = ThreadPoolExecutor(1, "dag-file")

    @staticmethod
    def _noted(case: Case, get: Callable[[Case], Any]) -> Any:
        with importing(case.trigger_id):
            return get(case)

    def _get_file(self, case: Case) -> LoadedFile:
        source = self._sources.get(case.code_hash)
        if source is None:
            raise RoostException("the version of its DAG file is not there any more")
        return self._load(source)

    def _get(self, case: Case) -> type[BaseTrigger]:
        """Check the name, then import. Runs in the loader's thread."""
        source = self._sources.get(case.code_hash)
        allowed = source.triggers if source is not None else []
        where = source.fileloc if source is not None else "its DAG file"
        if not is_known(case.source, allowed):
            raise refusal(case.source, where)
        if case.source in entry_point_sources():
            return self._packages.find(case.source)
        if source is not None and case.source in allowed:
            cls = self._load(source).triggers.get(case.source)
            if cls is None:  # a helper that is not kept has changed since
                raise refusal(case.source, where)
            return cls
        return resolve_trigger(case.source, allowed, None, where)

    def _load(self, source: Source) -> LoadedFile:
        loaded = self._loaded.get(source.code_hash)
        if loaded is None:
            folder = str(self._folder)
            bundle = Bundle(source.code_hash, folder, source.helpers) if source.helpers else None
            path = str(self._folder / source.fileloc)
            try:
                loaded = load_dag_file(
                    path, source.source, folder, with_policy=False, bundle=bundle
                )
            except Exception as error:
                what = f"{source.fileloc} (version {source.code_hash[:12]})"
                brief = f"{type(error).__name__}: {error}"
                error.add_note(
                    f"{what}, which has the trigger's class, cannot be imported: {brief}"
                )
                raise
            self._loaded[source.code_hash] = loaded
        return loaded


def _own_classes() -> list[type[BaseTrigger]]:
    offered = vars(roost.triggers).values()
    return [cls for cls in offered if isinstance(cls, type) and issubclass(cls, BaseTrigger)]
