"""The migrations make the schema of ``tables.py``, on both databases, there and back again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from roost.exceptions import SchemaError
from roost.migrations import api
from roost.models import schema
from roost.models.engine import open_engine
from roost.models.tables import metadata
from tests.migrations.shape import rows, shape


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


def by_scripts(engine: Engine, direction: str, revision: str) -> None:
    """Run Alembic's own command, without any shortcut."""
    with engine.begin() as connection:
        getattr(command, direction)(api.alembic_config(connection), revision)


def test_autogenerate_finds_nothing_to_do(engine: Engine) -> None:
    by_scripts(engine, "upgrade", "head")
    with engine.connect() as connection:
        opts: dict[str, Any] = {}
        if engine.dialect.name == "sqlite":
            # Reflection loses DESC and quotes of a default there; the next test compares both.
            opts["compare_server_default"] = False
            opts["include_object"] = lambda _object, name, *_: name != "ix_dispatch_waiting"
        assert compare_metadata(MigrationContext.configure(connection, opts=opts), metadata) == []


def test_the_shortcut_equals_every_migration(engine: Engine) -> None:
    assert api.migrate(engine) == (None, schema.HEAD)
    with engine.connect() as connection:
        made_at_once = shape(connection), rows(connection)
    api.downgrade(engine, "base")
    with engine.begin() as connection:
        assert not shape(connection) - {
            part for part in shape(connection) if schema.VERSION_TABLE in "".join(part)
        }
        connection.execute(text(f"DROP TABLE {schema.VERSION_TABLE}"))
    by_scripts(engine, "upgrade", "head")
    with engine.connect() as connection:
        migrated = shape(connection), rows(connection)
    assert made_at_once[0] ^ migrated[0] == set()
    assert made_at_once[1] == migrated[1]


def test_up_down_up(engine: Engine) -> None:
    by_scripts(engine, "upgrade", "head")
    with engine.connect() as connection:
        first = shape(connection)
    for revision in reversed((*schema.REVISIONS[:-1], "base")):
        api.downgrade(engine, revision)
        assert api.migrate(engine).after == schema.HEAD
    with engine.connect() as connection:
        assert shape(connection) == first


def test_the_constants_name_the_scripts(engine: Engine) -> None:
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(api.alembic_config(connection))
    assert script.get_heads() == [schema.HEAD]
    known = [revision.revision for revision in script.walk_revisions()]
    assert tuple(reversed(known)) == schema.REVISIONS


def test_several_may_migrate_at_once(empty_database_url: str) -> None:
    """Each waits for the one before: nobody fails, and one alone made the schema."""
    engines = [open_engine(empty_database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        changes = list(pool.map(api.migrate, engines))
    for engine in engines:
        engine.dispose()
    assert sorted(change.before or "" for change in changes) == ["", *[schema.HEAD] * 3]


def test_migrate_twice_is_a_no_op_and_check_says_so(engine: Engine) -> None:
    assert api.check(engine) == (None, schema.HEAD)
    api.migrate(engine)
    assert api.migrate(engine) == (schema.HEAD, schema.HEAD)
    assert api.check(engine) == (schema.HEAD, schema.HEAD)


def test_reset_empties_every_table(engine: Engine) -> None:
    api.migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO variable (key, value) VALUES ('a', 'b')"))
        before = shape(connection)
    assert api.reset(engine) == (schema.HEAD, schema.HEAD)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM variable")).scalar() == 0
        assert shape(connection) == before


def test_a_database_with_other_tables_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
        connection.execute(text("INSERT INTO theirs VALUES (1)"))
    api.migrate(engine)
    api.reset(engine)
    api.downgrade(engine, "base")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM theirs")).scalar() == 1


def test_a_failed_migration_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE xcom (id INTEGER)"))  # in the way of 0001
        before = shape(connection)
    with pytest.raises(Exception, match="xcom"):
        api.migrate(engine)
    with engine.connect() as connection:
        assert shape(connection) == before


def test_downgrade_names_what_there_is(engine: Engine) -> None:
    api.migrate(engine)
    with pytest.raises(
        SchemaError, match=rf"cannot go from {schema.HEAD} back to 'yesterday'; there is"
    ):
        api.downgrade(engine, "yesterday")


class TestRequireSchema:
    """Daemons refuse an old or a newer schema with one clear line."""

    def test_no_file(self, tmp_path: Path) -> None:
        engine = open_engine(f"sqlite:///{tmp_path}/new.db")
        with pytest.raises(SchemaError, match=r"there is no metadata database .*; run `roost db"):
            schema.require_schema(engine)
        assert not (tmp_path / "new.db").exists()

    def test_none(self, engine: Engine) -> None:
        with engine.connect():
            pass
        with pytest.raises(SchemaError, match="has no Roost schema; run `roost db migrate`"):
            schema.require_schema(engine)

    def test_head(self, engine: Engine) -> None:
        api.migrate(engine)
        schema.require_schema(engine)

    def test_older(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        api.migrate(engine)
        older = schema.HEAD
        monkeypatch.setattr(schema, "HEAD", "9998")
        with pytest.raises(
            SchemaError, match=rf"older schema {older}, .* 9998; run `roost db migr"
        ):
            schema.require_schema(engine)

    def test_newer(self, engine: Engine) -> None:
        api.migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(
            SchemaError, match=rf"has schema 9999, which this Roost \({schema.HEAD}\) does"
        ):
            schema.require_schema(engine)
        with pytest.raises(SchemaError, match="install the newer Roost"):
            api.migrate(engine)

    def test_unreachable_hides_the_password(self) -> None:
        engine = open_engine("postgresql://me:secret@127.0.0.1:1/roost")
        with pytest.raises(SchemaError, match=r"cannot be opened: .*; check data") as caught:
            schema.require_schema(engine)
        engine.dispose()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_daemon_never_imports_alembic() -> None:
    code = "import sys, roost.models.schema; print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
