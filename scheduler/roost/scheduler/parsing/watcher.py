"""Keeps the database in step with the DAGs folder; unchanged files cost one stat each."""

from __future__ import annotations

import logging
import os
import time
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from roost.dag.ignore import IgnoreSyntax
from roost.dag.model import ParsedFile
from roost.models.engine import read, transact
from roost.models.queries import dags
from roost.scheduler.parsing.folder import changed_files, file_clock, is_candidate, stamp_of
from roost.scheduler.parsing.pool import Parsed, ParserPool, failure
from roost.scheduler.parsing.running_out import RunningOut
from roost.scheduler.parsing.store import forget_file, store_file

__all__ = ["Watcher"]

log = logging.getLogger("roost.scheduler.parsing")
_SERVER_IDLE_S = 3.0


class Watcher:
    """Looks at the DAGs folder and stores what changed.

    Args:
        engine: the metadata database.
        dags_folder: absolute path.
        pool: parses files.
        safe_mode: look only at files that mention a DAG (S4).
        paused: whether new DAGs start out paused.
        ignore_syntax: of ignore files (S16).
    """

    def __init__(
        self,
        engine: Engine,
        dags_folder: str,
        pool: ParserPool,
        *,
        safe_mode: bool,
        paused: bool,
        ignore_syntax: IgnoreSyntax = "regexp",
    ) -> None:
        self._engine = engine
        self._folder = dags_folder
        self._pool = pool
        self._safe_mode = safe_mode
        self._paused = paused
        self._syntax = ignore_syntax
        self._uninteresting: dict[str, str] = {}  # files that safe mode leaves out, by stamp
        self._parsed: dict[str, str] = {}
        self._last_parse = 0.0
        self._warned = False
        self._running_out = RunningOut(engine)

    def look(self) -> int:
        """Parse what is new or changed, forget what is gone; gives how many files that were."""
        if not os.path.isdir(self._folder):
            if not self._warned:
                log.warning("the DAGs folder %s does not exist; create it", self._folder)
            self._warned = True
            return 0
        self._warned = False
        short = self._running_out.files()
        if not short and not any(self._compare(self._parsed)):
            self._rest()
            return 0
        # Only now ask the database: another scheduler may have parsed the same change.
        with read(self._engine) as tx:
            known = dags.files(tx)
        parsed = self._parsed = {path: row.stamp for path, row in known.items()}
        changed, gone = self._compare(parsed)
        # What failed may have failed for want of a file that has come, or was mended, since.
        failed = {path for path, row in known.items() if row.error is not None}
        changed = sorted({*changed, *(failed - set(gone))}) if changed or gone else []
        changed = [path for path in changed if self._interesting(path, path in parsed)]
        for path in gone:
            self._uninteresting.pop(path, None)
        for path in sorted(parsed.keys() & (set(gone) | self._uninteresting.keys())):
            transact(self._engine, lambda tx, path=path: forget_file(tx, path))  # type: ignore[misc]
            log.info("%s is gone; its DAGs are not scheduled any more", path)
        changed = sorted({*changed, *(short & parsed.keys() - set(gone))})
        places = {path: os.path.join(self._folder, path) for path in changed}
        past = self._running_out.past(places) if changed else {}
        for result in self._pool.parse(places.values(), past):
            self._store(result)
            self._last_parse = time.monotonic()
        self._running_out.look_again()
        with read(self._engine) as tx:
            self._parsed = {path: row.stamp for path, row in dags.files(tx).items()}
        self._rest()
        return len(changed) + len(gone)

    def close(self) -> None:
        """End the parser's fork server."""
        self._pool.close()

    def _compare(self, parsed: dict[str, str]) -> tuple[list[str], list[str]]:
        return changed_files(self._folder, {**self._uninteresting, **parsed}, self._syntax)

    def _rest(self) -> None:
        if time.monotonic() - self._last_parse > _SERVER_IDLE_S:
            self._pool.close()

    def _interesting(self, path: str, was_parsed: bool) -> bool:
        full = os.path.join(self._folder, path)
        read_at = file_clock()
        try:
            wanted = not self._safe_mode or is_candidate(full)
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error.strerror)
            wanted = was_parsed
        if wanted:
            self._uninteresting.pop(path, None)
        else:
            self._uninteresting[path] = stamp_of(self._folder, path, [], read_at_ns=read_at)
        return wanted

    def _store(self, result: Parsed) -> None:
        fileloc = os.path.relpath(result.path, self._folder)
        stamp = stamp_of(self._folder, fileloc, result.file.helpers, read_at_ns=result.began_ns)

        def store(file: ParsedFile) -> str | None:
            step = partial(
                store_file, fileloc=fileloc, parsed=file, stamp=stamp, took_us=result.took_us,
                paused=self._paused,
            )  # fmt: skip
            return transact(self._engine, step)

        try:
            error = store(result.file)
        except (DataError, OverflowError) as refused:
            # A number or a text that no column holds is that file's error, not the scheduler's.
            reason = getattr(refused, "orig", None) or refused
            error = store(failure(f"the database cannot hold what the file defines: {reason}"))
        for warning in result.file.warnings:
            log.warning("%s: %s", fileloc, warning)
        if error is None:
            names = ", ".join(dag.dag_id for dag in result.file.dags) or "no DAG"
            log.info("parsed %s in %d ms: %s", fileloc, result.took_us // 1000, names)
        else:
            log.error("%s: %s", fileloc, error.rstrip().rpartition("\n")[2])
