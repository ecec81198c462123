"""What a clone holds: nothing of the machine it was written on, and a lock that fits."""

from __future__ import annotations

import os
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.sources import REPOSITORY, tracked_files

_MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:work|root|farm|opt/pypi|opt/wheels)/")
_REGISTRY = re.compile(r"https?://[^\s\"]*(?:pypi|npmjs|pythonhosted|debian\.org/debian)")
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)")


def text_files() -> list[tuple[str, str]]:
    found = []
    for path in tracked_files():
        try:
            found.append((str(path.relative_to(REPOSITORY)), path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("trace", [_MACHINE_PATH, _REGISTRY], ids=["machine path", "registry"])
def test_no_trace_of_the_machine_it_was_written_on(trace: re.Pattern[str]) -> None:
    found = [f"{name}: {hit.group()}" for name, text in text_files() if (hit := trace.search(text))]
    assert found == []


def test_ci_can_be_run() -> None:
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def pins(name: str) -> dict[str, Version]:
    lines = (REPOSITORY / "requirements" / name).read_text().splitlines()
    found = (match for line in lines if (match := _PIN.match(line)))
    return {canonicalize_name(match[1]): Version(match[2]) for match in found}


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_the_lock_fits_what_pyproject_asks_for(name: str) -> None:
    """Whoever adds a dependency runs `make lock`."""
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    asked = [*pyproject["project"]["dependencies"]]
    asked += pyproject["project"]["optional-dependencies"]["postgres"]
    if name == "dev.txt":
        asked += pyproject["dependency-groups"]["dev"]
    locked = pins(name)
    for requirement in map(Requirement, asked):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements/{name}: make lock"
        assert version in requirement.specifier, f"{requirement} but {version} is locked"


def test_development_runs_on_the_versions_that_ship() -> None:
    shipped, development = pins("runtime.txt"), pins("dev.txt")
    assert {name: development.get(name) for name in shipped} == shipped


def test_every_locked_file_has_a_hash() -> None:
    for name in ("runtime.txt", "dev.txt"):
        text = (REPOSITORY / "requirements" / name).read_text()
        entries = re.split(r"\n(?=[A-Za-z])", text)
        assert all("--hash=sha256:" in entry for entry in entries if _PIN.match(entry))
        assert text.startswith("#") or _PIN.match(text)
