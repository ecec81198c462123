"""A DAGs folder with a watcher, and everything that it parsed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from roost.models.engine import open_engine
from roost.scheduler.parsing.folder import file_clock
from roost.scheduler.parsing.pool import Parsed, ParserPool, Past
from roost.scheduler.parsing.watcher import Watcher
from tests.support.databases import fetch
from tests.support.waiting import wait_until

__all__ = ["GOOD", "Folder"]

GOOD = """
from roost.dag import DAG
from roost.operators import EmptyOperator

with DAG({dag_id!r}, schedule=None, description={note!r}):
    EmptyOperator(task_id="a")
"""


class Folder:
    """A DAGs folder with a watcher, and everything that it parsed."""

    def __init__(
        self, url: str, path: Path, *, safe_mode: bool = True, timeout_s: float = 20
    ) -> None:
        self.url = url
        self.path = path
        self.engine = open_engine(url)
        self.parsed: list[str] = []
        pool = ParserPool(str(path), timeout_s=timeout_s, memory_bytes=1 << 30, environ=os.environ)
        parse = pool.parse

        def noted(paths: Iterable[str], past: Mapping[str, Past] | None = None) -> Iterator[Parsed]:
            for one in parse(paths, past):
                self.parsed.append(os.path.relpath(one.path, path))
                yield one

        pool.parse = noted  # type: ignore[method-assign]
        self.pool = pool
        self.watcher = Watcher(self.engine, str(path), pool, safe_mode=safe_mode, paused=False)

    def write(self, name: str, text: str | bytes) -> None:
        """Write a file, and let the clock of the file system go on by a tick (4 ms)."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode() if isinstance(text, str) else text
        place.write_bytes(data)
        wait_until(lambda: file_clock() > place.stat().st_ctime_ns, what="the next tick")

    def good(self, name: str, dag_id: str | None = None, note: str = "") -> None:
        """Write a healthy file."""
        self.write(name, GOOD.format(dag_id=dag_id or name.removesuffix(".py"), note=note))

    def look(self) -> list[str]:
        """Look once; gives what was parsed for it."""
        self.parsed.clear()
        self.watcher.look()
        return sorted(self.parsed)

    def dags(self) -> dict[str, str]:
        """File by DAG, of those that are scheduled."""
        rows = fetch(self.url, "SELECT dag_id, fileloc FROM dag WHERE is_active = :t", t=True)
        return {row["dag_id"]: row["fileloc"] for row in rows}

    def errors(self) -> dict[str, str]:
        """Import error by file."""
        rows = fetch(self.url, "SELECT fileloc, error FROM dag_file WHERE error IS NOT NULL")
        return {row["fileloc"]: row["error"] for row in rows}

    def note(self, dag_id: str) -> Any:
        """The description of a DAG, which tells which text of its file is in force."""
        (row,) = fetch(self.url, "SELECT description FROM dag WHERE dag_id = :d", d=dag_id)
        return row["description"]

    def close(self) -> None:
        self.watcher.close()
        self.engine.dispose()
