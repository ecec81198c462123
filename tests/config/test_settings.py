"""The table of settings is honest: every row is documented, checkable and read by some code."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from roost.support.config import Config
from roost.support.setting_rows import Setting, all_settings
from roost.support.settings import SECTIONS

ROOT = Path(__file__).parents[2]
SETTINGS = list(all_settings())


def test_the_config_has_exactly_the_sections_of_the_table() -> None:
    fields = {field.name for field in msgspec.structs.fields(Config)}
    assert fields - {"home", "file", "origins"} == set(SECTIONS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_row_is_documented_and_its_default_fits(setting: Setting) -> None:
    assert setting.doc.endswith(".")
    msgspec.convert(setting.default, setting.type, dec_hook=lambda kind, value: value)
    # ROOST__SECTION__KEY_FILE would be ambiguous, and __ separates section and key.
    assert not setting.key.endswith("_file")
    assert "__" not in setting.key


# Short names on Config, which count as reading what they stand for.
ALIASES = {"dags_folder": ("core", "dags_folder"), "log_folder": ("logging", "folder")}


def reads() -> set[tuple[str, str]]:
    """Every ``….section.key`` in the source outside the configuration's own modules."""
    found: set[tuple[str, str]] = set()
    for root in ("models", "scheduler", "triggerer", "migrations"):
        for file in (ROOT / root).rglob("*.py"):
            if file.name in ("settings.py", "config.py"):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute):
                    of = node.value
                    name = str(getattr(of, "attr", None) or getattr(of, "id", ""))
                    found.add(ALIASES.get(node.attr, (name, node.attr)))
    return found


def test_every_setting_is_read_by_some_code() -> None:
    unread = {setting.name for setting in SETTINGS} - {".".join(pair) for pair in reads()}
    assert unread == set(), "remove these settings or use them"
