"""The kill test in short: the same bed, load, nemesis and judge as ``make chaos``, a fixed seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import trial

pytestmark = pytest.mark.timeout(240)


def tell(line: str) -> None:
    print(line)  # noqa: T201 - shown when it fails


def test_what_is_killed_breaks_no_promise(database_kind: str, tmp_path: Path) -> None:
    """Invariants S1-S6, S11, S15: two triggerers of two hosts, every wait, one blow a second."""
    folder = tmp_path / "chaos"
    folder.mkdir()
    plan = trial.Plan(
        12.0,
        seed=11,
        database=database_kind,
        kinds=frozenset({"kill", "term", "runner-kill", "db-crash", "db-cut"}),
        every_s=0.7,
        pause_s=(0.5, 1.5),
    )
    result = trial.run(plan, folder, tell)
    assert result.violations == []
    assert result.figures["deferred"] > 0


def test_a_mutant_is_found_out(tmp_path: Path) -> None:
    """Invariant S3: events that are marked as stored and are not leave their tasks waiting."""
    plan = trial.Plan(
        4.0,
        seed=12,
        database="sqlite",
        kinds=frozenset(),
        every_s=0.5,
        drain_s=6.0,
        mutant="lost-event",
    )
    result = trial.run(plan, tmp_path, tell)
    assert any(line.startswith("L5") for line in result.violations), result.violations
