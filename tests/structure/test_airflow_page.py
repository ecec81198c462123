"""docs/airflow.md: what it says is here is here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "airflow.md").read_text()
MENU = [
    "DAG serialization", "time zones", "plugins", "lineage", "REST", "error tracking", "metrics",
    "Kubernetes", "Smart Sensor", "modules management", "upgrade check", "backport providers",
    "data profiling", "FAQ", "best practices",
]  # fmt: skip


@pytest.mark.parametrize("name", MENU)
def test_each_name_of_the_menu_has_an_answer(name: str) -> None:
    """S109: names without semantics of their own; the page says what there is instead."""
    assert re.search(rf"^\| {name}", PAGE, re.MULTILINE)


def test_every_import_on_the_page_works() -> None:
    found = re.findall(r"\| `from (roost[\w.]*) import ([\w, ]+)`", PAGE)
    assert len(found) > 6
    for module, names in found:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
