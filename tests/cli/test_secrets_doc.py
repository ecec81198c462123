"""docs/secrets.md: its commands, run one after the other, print what it says they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.seed import Seed
from tests.support.reference import DOCS

TEXT = (DOCS / "secrets.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Each command of the page and the output that follows it."""
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    found = []
    for block in blocks:
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def test_s60_the_commands_of_the_page_do_what_it_says(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = seed.home / "roost"
    home.mkdir()
    monkeypatch.chdir(home)
    seed.env["ROOST_HOME"] = str(home)
    for command, output in steps():
        text: str | None = None
        if command.startswith("echo "):
            given, _, command = command.partition(" | ")
            text = given.removeprefix("echo ") + "\n"
        words = shlex.split(command)
        if words[0] == "roost":
            result = seed.cli(*words[1:], input=text)
            assert result.exit_code == 0, result.stderr
            shown = result.stdout
        else:
            path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, check=True,
                env={**os.environ, **seed.env, "PATH": path},
            )  # fmt: skip
            shown = done.stdout
        assert shown.replace(str(home), "~/roost") == output, command


def test_the_page_names_every_sensitive_word() -> None:
    from roost.support import masking

    for word in masking._NAMES:
        assert f"`{word}`" in TEXT, word


def test_the_python_of_the_page_is_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    compile(code, str(Path("secrets.md")), "exec")
