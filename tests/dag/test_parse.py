"""What a parser says about a file besides its DAGs."""

from __future__ import annotations

from pathlib import Path

from roost.dag.parse import parse_dag_file

_FILE = """
from datetime import datetime, timedelta
from roost.dag import DAG
from roost.operators import EmptyOperator

with DAG("loud", dagrun_timeout=timedelta(hours=1)):
    EmptyOperator(task_id="a", end_date=datetime(2026, 1, 1))
with DAG("quiet", start_date=datetime(2026, 1, 1)):
    EmptyOperator(task_id="a")
"""


def test_what_is_kept_and_not_enforced_is_said(tmp_path: Path) -> None:
    """H11: a limit that would be passed over in silence is worse than none."""
    file = tmp_path / "dags.py"
    file.write_text(_FILE)
    assert parse_dag_file(str(file), str(tmp_path)).warnings == [
        "DAG 'loud': dagrun_timeout is kept, but not enforced yet",
        "DAG 'loud': end_date of a task is kept, but not enforced yet",
    ]
