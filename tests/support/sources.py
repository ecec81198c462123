"""The project's own source, as text and syntax trees, for tests that hold its structure."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["REPOSITORY", "ROOTS", "Module", "modules", "tracked_files"]

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("models", "scheduler", "triggerer", "migrations")


class Module(NamedTuple):
    """One Python file of a source root; ``name`` is dotted, as it is imported."""

    name: str
    path: Path
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    """Every module that the wheel ships."""
    return tuple(_modules())


def _modules() -> Iterator[Module]:
    for root in ROOTS:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield Module(name, path.relative_to(REPOSITORY), ast.parse(path.read_text(), str(path)))


def tracked_files() -> list[Path]:
    """Every file that git tracks and that is still there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )
    paths = (REPOSITORY / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]
