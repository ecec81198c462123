"""docs/callbacks.md: every example is a DAG file that parses, and its callbacks run (H23)."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from roost.dag import DAG
from roost.dag.callbacks import run_callback
from roost.dag.parse import parse_dag_file
from roost.dag.serialize import serialize_dag
from roost.support.wire import CallbackSpec
from tests.dag.case import FakeSupervisor, load_text, run, spec_for

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: re.findall(r'"(\w+)",\n', text)[0])
def test_h23_every_example_runs_with_its_callbacks(text: str, tmp_path: Path) -> None:
    """H23: tasks succeed, and each callback that the scheduler would dispatch does."""
    loaded = load_text(tmp_path, text)
    assert parse_dag_file(str(tmp_path / "file.py"), str(tmp_path)).error is None
    for dag in loaded.dags.values():
        sla(dag)
        deadlines(dag)
        plan = serialize_dag(dag)
        for task, known in zip(dag.topological_sort(), plan.tasks, strict=True):
            assert run(task)[0].kind == "success"
            for name in known.callbacks:
                failed = CallbackSpec(
                    kind="task", name=name, state="failed", reason="boom", error="boom"
                )
                outcome = run_callback(spec_for(task, callback=failed), dag, FakeSupervisor())
                assert outcome.kind == "success", outcome.error
        for told in set(plan.callbacks) & {"on_success", "on_failure"}:
            ended = CallbackSpec(kind="dag", name=told, state="failed", reason="task_failure")
            last = dag.topological_sort()[-1]
            outcome = run_callback(spec_for(last, callback=ended), dag, FakeSupervisor())
            assert outcome.kind == "success", outcome.error


def sla(dag: DAG) -> None:
    """Call sla_miss_callback, where there is one, of the last task."""
    if dag.sla_miss_callback:
        last = dag.topological_sort()[-1]
        date = 1_767_225_600_000_000
        data = {"missed": [[last.task_id, date, date]], "blocking": []}
        detail = msgspec.Raw(msgspec.json.encode(data))
        told = CallbackSpec(kind="sla", name="sla_miss", reason="1 missed", detail=detail)
        outcome = run_callback(spec_for(last, callback=told), dag, FakeSupervisor())
        assert outcome.kind == "success", outcome.error


def deadlines(dag: DAG) -> None:
    """Call the callback of each deadline."""
    for position in range(len(dag.deadlines)):
        late = CallbackSpec(
            kind="deadline",
            name="deadline",
            position=position,
            detail=msgspec.Raw(b'{"due_at": 0}'),
        )
        spec = spec_for(dag.topological_sort()[-1], callback=late)
        outcome = run_callback(spec, dag, FakeSupervisor())
        assert outcome.kind == "success", outcome.error


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4
