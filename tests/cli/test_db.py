"""``roost db``: the schema by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.schema import HEAD
from tests.cli.seed import Seed
from tests.support.databases import Databases


@pytest.fixture
def empty(empty_database_url: str, tmp_path: Path) -> Seed:
    """A database without any table."""
    return Seed(empty_database_url, tmp_path)


def test_migrate_check_and_again(empty: Seed) -> None:
    missing = empty.cli("db", "check")
    assert missing.exit_code == 1
    assert "run `roost db migrate`" in missing.stderr
    migrated = empty.cli("db", "migrate")
    assert migrated.exit_code == 0
    assert migrated.stdout.endswith(f": no schema -> {HEAD}\n")
    assert empty.cli("db", "migrate").stdout.endswith(f"is at {HEAD} already\n")
    assert empty.cli("db", "check").exit_code == 0


def test_reset_asks_first(seed: Seed) -> None:
    seed.sql("INSERT INTO variable (key, value) VALUES ('a', 'b')")
    asked = seed.cli("db", "reset")
    assert asked.exit_code == 0
    assert "say --yes to do it" in asked.stdout
    assert seed.scalar("SELECT count(*) FROM variable") == 1
    assert seed.cli("db", "reset", "--yes").exit_code == 0
    assert seed.scalar("SELECT count(*) FROM variable") == 0
    assert seed.scalar("SELECT slots FROM pool") == 128


def test_downgrade_asks_first(seed: Seed) -> None:
    assert "say --yes" in seed.cli("db", "downgrade", "-r", "base").stdout
    done = seed.cli("db", "downgrade", "-r", "base", "--yes")
    assert done.stdout.endswith(f"{HEAD} -> no schema\n")
    assert seed.cli("db", "check").exit_code == 1


def test_nothing_is_dropped_beneath_a_living_daemon(seed: Seed) -> None:
    seed.job("scheduler")
    for args in (("reset",), ("downgrade", "-r", "base")):
        refused = seed.cli("db", *args, "--yes")
        assert refused.exit_code == 2
        assert "daemons are using this database: scheduler here:" in refused.stderr
    assert seed.cli("db", "check").exit_code == 0


def test_migrate_makes_the_home(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    made = Seed(f"sqlite:///{home}/roost.db", home)
    assert made.cli("db", "migrate").exit_code == 0
    assert home.stat().st_mode & 0o077 == 0


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    away = Seed("postgresql+psycopg://me:secret@127.0.0.1:1/roost", tmp_path)
    for args in (("migrate",), ("check",), ("reset", "--yes")):
        result = away.cli("db", *args)
        assert result.exit_code in (1, 2)
        assert "secret" not in result.stderr
        assert result.stderr.count("\n") == 1


def test_standalone_does_not_migrate_postgresql(databases: Databases, tmp_path: Path) -> None:
    with databases.postgresql(migrated=False) as url:
        made = Seed(url, tmp_path)
        refused = made.cli("standalone")
        assert refused.exit_code == 2
        assert "has no Roost schema; run `roost db migrate`" in refused.stderr
        assert made.cli("db", "check").exit_code == 1
