"""docs/authoring.md: every example is a DAG file that parses and whose tasks run to the end."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from roost.dag.context import CONTEXT_KEYS
from roost.dag.deferral import timer_payload
from roost.dag.loader import LoadedFile
from roost.dag.operator import BaseOperator
from roost.dag.parse import parse_dag_file
from roost.dag.registry import resolve_trigger
from roost.support import typedjson
from roost.support.wire import DeferSpec, Outcome
from tests.dag.case import FakeSupervisor, load_text, raw, run

PAGE = (Path(__file__).parents[2] / "docs" / "authoring.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def event_of(spec: DeferSpec, loaded: LoadedFile) -> Any:
    """What the wait would end with, without waiting."""
    if spec.due_at is not None:
        return typedjson.decode(timer_payload(spec.due_at))
    kwargs: Any = typedjson.decode(spec.kwargs)
    if "paths" in kwargs:
        return ["/data/in/2026-01-31-a.csv"]
    trigger = resolve_trigger(spec.source, loaded.triggers, loaded)(**kwargs)

    async def first() -> Any:
        return (await anext(trigger.run())).payload

    return asyncio.run(first())


def to_the_end(task: BaseOperator, loaded: LoadedFile, supervisor: FakeSupervisor) -> Outcome:
    if task.start_from_trigger:
        assert task.start_trigger_args is not None
        method = task.start_trigger_args.next_method
        event = raw({"event": ["/exports/2026-01-31.csv"]})
        return run(task, supervisor, next_method=method, next_kwargs=event)[0]
    outcome, _ = run(task, supervisor, interval_end=4_102_444_800_000_000)
    while outcome.defer is not None:
        kwargs: Any = typedjson.decode(outcome.defer.next_kwargs)
        kwargs["event"] = event_of(outcome.defer, loaded)
        method = outcome.defer.next_method
        outcome, _ = run(task, supervisor, next_method=method, next_kwargs=raw(kwargs))
    return outcome


@pytest.mark.parametrize(
    "text", EXAMPLES, ids=lambda text: re.findall(r'"(\w+)"|def (\w+)', text)[0]
)
def test_every_example_runs(text: str, tmp_path: Path) -> None:
    loaded = load_text(tmp_path, text)
    assert parse_dag_file(str(tmp_path / "file.py"), str(tmp_path)).error is None
    assert loaded.dags
    for dag in loaded.dags.values():
        supervisor = FakeSupervisor()
        for task in dag.topological_sort():
            outcome = to_the_end(task, loaded, supervisor)
            assert outcome.kind == "success", outcome.error


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 11


def test_every_context_key_is_on_the_page() -> None:
    missing = {key for key in CONTEXT_KEYS if not re.search(rf"\b{key}\b", PAGE)}
    # Abbreviated on the page as "(and `_nodash`)", or explained with an operator.
    assert missing <= {"yesterday_ds_nodash", "tomorrow_ds_nodash", "templates_dict"}
