"""docs/metrics.md and docs/deploy.md say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.generate import DOCS, HERE, with_table
from roost.support.metrics import METRICS
from roost.support.setting_rows import all_settings

DEPLOY = DOCS.with_name("deploy.md")


def test_the_table_of_metrics_is_the_registry() -> None:
    """Run ``python -m deploy.generate`` after changing the registry."""
    text = DOCS.read_text(encoding="utf-8")
    assert with_table(text) == text
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|", text, flags=re.MULTILINE)
    assert rows == [(metric.name, metric.kind) for metric in METRICS]


def test_metrics_that_the_text_names_exist() -> None:
    text = DOCS.read_text(encoding="utf-8")
    prose = text.partition("<!-- end -->")[2]
    known = {metric.stem for metric in METRICS} | {metric.name for metric in METRICS}
    stems = ("executor.", "scheduler.", "pool.", "ti.", "triggers.", "triggerer.")
    for name in re.findall(r"`([a-z_]+\.[a-z_.{}]+)`", prose):
        if name.startswith(stems):
            assert name in known


@pytest.mark.parametrize("page", [DEPLOY, DOCS, HERE / "README.md"])
def test_files_and_settings_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bdeploy/[\w./-]*\w", text):
        assert (HERE.parent / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+\.md)\)", text):
        assert (page.parent / name).exists(), name
    known = {setting.variable for setting in all_settings()}
    assert set(re.findall(r"ROOST__\w+__\w+", text)) <= known


def test_every_file_of_the_systemd_folder_is_in_the_steps() -> None:
    text = DEPLOY.read_text(encoding="utf-8")
    for path in (HERE / "systemd").iterdir():
        name = re.sub(r"roost-\w+\.service", "roost-*.service", path.name)
        assert name in text, path.name
