"""docs/mapping.md, docs/timetables.md: every example runs, in the scheduler itself (H17, H18)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roost.dag import timetables
from roost.dag.parse import parse_dag_file
from roost.testing import run_dag, run_schedule

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> dict[str, str]:
    texts = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.DOTALL)
    return {re.findall(r'DAG\(\s*"(\w+)"', text)[0]: text for text in texts}


MAPPING = examples("mapping.md")
ENDS: dict[str, dict[tuple[str, int], Any]] = {
    "mapping": {("total", -1): 150, ("count", 2): 50, ("show", 1): "1"},
    "groups": {("report", -1): ["3 rows", "5 rows"], ("load.store", 1): "5 rows"},
    "cluster": {("delete", -1): "deleted cluster-1", ("more", -1): "done"},
}


def test_there_is_an_outcome_for_every_example() -> None:
    assert MAPPING.keys() == ENDS.keys()


@pytest.mark.parametrize("name", MAPPING)
def test_h17_h18_every_example_of_mapping_runs(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text(MAPPING[name])
    run = run_dag(file)
    assert run.state == "success", {task.task_id: task.error for task in run.tasks}
    assert set(run.states.values()) == {"success"}
    for place, value in ENDS[name].items():
        assert run[place].xcom() == value


def test_h14_the_timetable_of_the_page_names_workdays(tmp_path: Path) -> None:
    file = tmp_path / "workdays.py"
    file.write_text(examples("timetables.md")["workdays"])
    parsed = parse_dag_file(str(file), str(tmp_path))
    assert parsed.error is None
    starts = [datetime.fromtimestamp(run[0] / 1e6, UTC) for run in parsed.upcoming["workdays"].runs]
    assert [f"{start:%a %d}" for start in starts[:4]] == ["Thu 01", "Fri 02", "Mon 05", "Tue 06"]
    assert len(starts) == 50


def test_h14_every_timetable_is_on_the_page() -> None:
    page = (DOCS / "timetables.md").read_text()
    missing = {name for name in timetables.__all__ if f"{name}" not in page}
    assert missing <= {"DataInterval", "TimeRestriction"}


def test_h14_the_timetable_of_the_page_makes_runs(tmp_path: Path) -> None:
    file = tmp_path / "workdays.py"
    file.write_text(examples("timetables.md")["workdays"])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    runs = run_schedule(file, start, datetime(2026, 5, 1, tzinfo=UTC))
    dates = [run.logical_date for run in runs]
    assert len(dates) > 80, "more than the parser names at once"
    assert all(date is not None and date.weekday() < 5 for date in dates)
