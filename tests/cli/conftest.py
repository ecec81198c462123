"""A seeded database for the commands, on both kinds in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.support.crypto import KEY_FILE, create_key_file
from tests.cli.seed import Seed


@pytest.fixture
def seed(database_url: str, tmp_path: Path) -> Seed:
    """An empty, migrated database and a home without a roost.toml."""
    return Seed(database_url, tmp_path)


@pytest.fixture
def keyed(seed: Seed) -> Seed:
    """The same, with an encryption key in the home."""
    assert create_key_file(seed.home / KEY_FILE)
    return seed
