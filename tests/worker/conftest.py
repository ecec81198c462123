"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.driving import Driver


@pytest.fixture
def make_driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Makes drivers of hubs; at the end of the test nothing of them may be left."""
    made: list[Driver] = []

    def make(**settings: Any) -> Driver:
        made.append(Driver(tmp_path, **settings))
        return made[-1]

    yield make
    for driver in made:
        driver.close()
        assert driver.processes() == []


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Driver:
    """A driver with the default settings."""
    return make_driver()
