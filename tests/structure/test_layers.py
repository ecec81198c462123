"""Who may import whom: the written contracts, and what a fresh process really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import REPOSITORY, modules

_DATABASE = {"sqlalchemy", "alembic", "psycopg"}
_SQL_HOMES = (
    "roost.models.queries",
    "roost.models.transitions",
    "roost.models.engine",
    "roost.models.tables",
    "roost.models.schema",
    "roost.migrations",
)


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after ``code``."""
    report = "lambda: print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    head = f"import atexit, sys; atexit.register({report})\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_written_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_cheap_command_starts_cheaply() -> None:
    """`roost version` must not pay for the database or the event loop (0.2 s in all)."""
    loaded = loaded_by("from roost.cli.main import cli; cli(['version'], standalone_mode=False)")
    assert "click" in loaded
    assert not loaded & (_DATABASE | {"anyio", "asyncio", "jinja2"})


@pytest.mark.parametrize(
    "module",
    [
        "roost.dag",
        "roost.operators",
        "roost.sensors",
        "roost.hooks",
        "roost.triggers",
        "roost.worker.zygote",
        "roost.worker.template",
        "roost.triggerer.runner",
    ],
)
def test_processes_with_user_code_never_load_the_database(module: str) -> None:
    """Tasks, templates and runners have no database library, hence no way to the database."""
    assert not loaded_by(f"import {module}") & _DATABASE


def imports(tree: ast.Module) -> set[tuple[str, str]]:
    """Every (module, name) that is imported; name is empty for ``import module``."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def test_nothing_unpickles() -> None:
    """Design rule 6: user values are JSON, whoever wrote them."""
    serializers = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
    # What core.xcom_pickling switches on, in task processes alone (S53).
    allowed = {"roost.dag.xcom_pickle"}
    for module in modules():
        used = {name.partition(".")[0] for name, _ in imports(module.tree)}
        assert not used & serializers or module.name in allowed, module.path
        if module.name != "roost.dag.xcom_value":
            assert ("roost.dag", "xcom_pickle") not in imports(module.tree), module.path


def test_sql_is_made_in_one_place() -> None:
    """Design rule 7: statements live in queries/ and transitions.py."""
    makers = {"text", "select", "insert", "update", "delete"}
    for module in modules():
        if not module.name.startswith(_SQL_HOMES):
            made = {name for source, name in imports(module.tree) if source == "sqlalchemy"}
            assert not made & makers, module.path
