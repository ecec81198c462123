"""The demo runs, ends by itself, and its figures are those that the commands it names count."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_the_demo_reports_what_can_be_counted_by_hand() -> None:
    """Issue-level promise of `make demo`: live states, no slot in use while deferred, exit 0."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True
    )
    shown = done.stdout
    assert done.returncode == 0, shown + done.stderr
    assert "2 tasks are deferred; slots in use: 0 of 128" in shown
    for line in ("wait_for_file", "deferred", "quarantine", "skipped", "run demo success"):
        assert line in shown
    figures = re.findall(r"(?m)^.*?(\d+) (?:zones|countries)\b.*$", shown)
    commands = re.findall(r"(?m)^grep .*$", shown)
    assert len(commands) == len(figures) == 5
    for figure, command in zip(figures, commands, strict=True):
        counted = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert int(counted.stdout) == int(figure), command
