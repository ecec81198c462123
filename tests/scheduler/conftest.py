"""A world for each test, checked when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scheduler.hands import World
from tests.support.reused import database_url, postgresql_url

__all__ = ["database_url", "postgresql_url", "world"]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A world on each kind of database; every invariant must hold at the end."""
    made = World(database_url)
    try:
        yield made
        made.check()
    finally:
        made.close()
