"""The wheel: one name, nothing else, and it works where nothing but it is installed."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.structure.test_repository import pins
from tests.support.daemons import Daemons, clean_environment
from tests.support.databases import fetch
from tests.support.sources import REPOSITORY, modules
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a release would publish."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``roost`` command of a fresh environment that holds the wheel and its dependencies.

    The locked runtime packages are linked in from this environment, so that no network is needed;
    development tools and the ``postgres`` extra are absent, as they are for a user.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for name in pins("runtime.txt"):
        # The lock also names what only other Pythons and systems need.
        here = importlib.metadata.distributions(name=name)
        if not name.startswith("psycopg") and (found := next(iter(here), None)) is not None:
            link(found, site)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--no-warn-script-location", str(wheel)]
    subprocess.run(command, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}, check=True)
    return folder / "bin" / "roost"


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Show one installed distribution in another site-packages."""
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))


def test_it_installs_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"roost"}
    assert "roost/__init__.py" not in names
    assert sum(name.endswith(".dist-info/licenses/LICENSE") for name in names) == 1


def test_it_ships_every_module_and_every_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for module in modules():
        assert str(module.path.relative_to(module.path.parts[0])) in names
    packages = {name.split("/")[1] for name in names if name.startswith("roost/")}
    for portion in packages - {"exceptions.py"}:
        assert f"roost/{portion}/py.typed" in names


def test_the_command_works_where_only_the_wheel_is_installed(
    installed: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [installed, "version"],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert importlib.metadata.version("roost") in done.stdout


_DAG = """
from datetime import timedelta
from roost.dag import DAG, task
from roost.operators import BaseOperator
from roost.triggers import TimeDeltaTrigger

class Nap(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="wake")

    def wake(self, context, event):
        return "rested"

@task
def tell(word):
    print(f"it is {word}")

with DAG("alone", schedule=None):
    tell(Nap(task_id="nap").output)
"""


def test_standalone_works_where_only_the_wheel_is_installed(
    installed: Path, tmp_path: Path
) -> None:
    """An empty home, one command, a deferred task, a value passed on, and a clean end."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "alone.py").write_text(_DAG)
    alone = Daemons(tmp_path, str(installed))
    try:
        standalone = alone.start("standalone")
        url = f"sqlite:///{tmp_path / 'roost.db'}"
        wait_until(lambda: fetch(url, "SELECT 1 FROM dag WHERE is_active"), what="the DAG")
        alone.cli("dags", "trigger", "alone", "--run-id", "once", "--wait")
        assert "it is rested" in alone.cli("tasks", "logs", "alone", "once", "tell").stdout
        standalone.signal(signal.SIGINT)
        assert standalone.wait() == 0
    finally:
        alone.close()
