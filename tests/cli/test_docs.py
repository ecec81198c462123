"""docs/cli.md and docs/configuration.md name every command, option and setting, and no other."""

from __future__ import annotations

import re
import tomllib

import pytest

from roost.cli.main import cli
from roost.support.config import load_config
from tests.support.reference import DOCS, PAGES, commands, expected


@pytest.mark.parametrize("page", PAGES)
def test_the_reference_is_what_the_code_says(page: str) -> None:
    written, made = expected(page)
    assert written == made, "run `python -m tests.support.reference`"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_named_in_the_text_exists(page: str) -> None:
    known = {path for path, _ in commands()}
    text = (DOCS / page).read_text()
    for named in re.findall(r"(?:^\$ |`)(roost(?: [a-z][a-z-]*)+)", text, re.MULTILINE):
        words = named.split()
        assert any(" ".join(words[: at + 1]) in known for at in range(1, len(words))), named
    assert cli.name == "roost"


def test_the_example_file_is_valid(tmp_path: pytest.TempPathFactory) -> None:
    (example,) = re.findall(
        r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL
    )
    assert tomllib.loads(example)["core"]["parallelism"] == 64
    home = str(tmp_path)
    with open(f"{home}/roost.toml", "w") as file:
        file.write(example)
    assert load_config({"ROOST_HOME": home}).worker.queues == ("default", "reports")
