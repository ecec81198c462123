"""A seeded database for the commands, on both kinds in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.seed import Seed


@pytest.fixture
def seed(database_url: str, tmp_path: Path) -> Seed:
    """An empty, migrated database and a home without a roost.toml."""
    return Seed(database_url, tmp_path)
