"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from roost.support import masking
from roost.support.crypto import KEY_FILE, create_key_file
from tests.support import rows
from tests.support.daemons import Daemons
from tests.support.databases import Databases, stop_server

# A slow machine is no falsifying example.
settings.register_profile("roost", deadline=None)
settings.load_profile("roost")

_OUTCOMES = {"passed", "failed", "error", "skipped", "xfailed"}
_SHARED = "ROOST_TEST_SHARED"
_CONTROLLER = "ROOST_TEST_CONTROLLER"


def _is_controller(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all processes of this session share, before any of them starts."""
    if _is_controller(config):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="roost-tests-")
        os.environ[_CONTROLLER] = str(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the shared server when all test processes are done."""
    if _is_controller(config) and _SHARED in os.environ:
        shared = Path(os.environ.pop(_SHARED))
        stop_server(shared)
        shutil.rmtree(shared)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """End the whole suite's output with the table of the semantics: row, outcome, test."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    for word, reports in terminalreporter.stats.items():
        if word in _OUTCOMES:
            for report in reports:
                outcomes[report.nodeid.partition("[")[0]].add(word)
    if any("test_rows.py" in test for test in outcomes):
        terminalreporter.write_sep("=", "rows of the semantics")
        for line in rows.table(outcomes):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    """What a test's tasks were given of secrets is not hidden in the next test."""
    yield
    masking.forget()


@pytest.fixture(autouse=True)
def no_settings_left() -> Iterator[None]:
    """Commands run in this process hand settings to user code by the environment."""
    before = {name: value for name, value in os.environ.items() if name.startswith("ROOST__")}
    yield
    for name in [name for name in os.environ if name.startswith("ROOST__")]:
        if name not in before:
            del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Makes fresh databases; the server behind them starts with the first one asked for."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    made = Databases(Path(os.environ[_SHARED]), int(os.environ[_CONTROLLER]), worker)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """``sqlite`` and ``postgresql``, one after the other."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, databases: Databases, tmp_path: Path) -> Iterator[str]:
    """A fresh database with the newest schema; the test runs once on each kind."""
    kind = databases.postgresql() if database_kind == "postgresql" else databases.sqlite(tmp_path)
    with kind as url:
        yield url


@pytest.fixture
def empty_database_url(database_kind: str, databases: Databases, tmp_path: Path) -> Iterator[str]:
    """A fresh database without any table; the test runs once on each kind."""
    if database_kind == "postgresql":
        made = databases.postgresql(migrated=False)
    else:
        made = databases.sqlite(tmp_path, migrated=False)
    with made as url:
        yield url


@pytest.fixture
def roost_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Roost home with an empty ``dags`` folder and a ``roost.toml``.

    The file names ``database_url`` if the test uses that fixture too, else nothing: the default
    is a SQLite file in the home, without a schema until ``roost db migrate``.
    """
    home = tmp_path_factory.mktemp("home")
    (home / "dags").mkdir()
    lines = ["[core]", f'dags_folder = "{home / "dags"}"']
    if "database_url" in request.fixturenames:
        lines += ["[database]", f'url = "{request.getfixturevalue("database_url")}"']
    (home / "roost.toml").write_text("\n".join(lines) + "\n")
    create_key_file(home / KEY_FILE)
    return home


@pytest.fixture
def daemons(roost_home: Path, database_url: str) -> Iterator[Daemons]:
    """Real ``roost`` processes in ``roost_home``, on both kinds of database in turn."""
    started = Daemons(roost_home)
    yield started
    started.close()
