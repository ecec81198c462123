"""A world for each test, checked when the test is over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.hands import World
from tests.scheduler.watching import Folder
from tests.support.processes import descendants
from tests.support.reused import database_url, postgresql_url

__all__ = ["database_url", "folder", "make", "postgresql_url", "world"]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A world on each kind of database; every invariant must hold at the end."""
    made = World(database_url)
    try:
        yield made
        made.check()
    finally:
        made.close()


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Folder]]:
    """Makes the folder; afterwards no process of the parser may be left."""
    before = descendants(os.getpid())
    made: list[Folder] = []

    def one(**options: Any) -> Folder:
        path = tmp_path / "dags"
        path.mkdir()
        made.append(Folder(database_url, path, **options))
        return made[-1]

    yield one
    for folder in made:
        folder.close()
    assert descendants(os.getpid()) - before == set()


@pytest.fixture
def folder(make: Callable[..., Folder]) -> Folder:
    return make()
