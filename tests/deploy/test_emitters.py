"""Every counter and timer of the registry is emitted by the daemons it names, nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from deploy.generate import HERE
from roost.support.metrics import METRICS, find

# Folder of a daemon's code -> the daemon.
DAEMONS = {
    "scheduler/roost/scheduler": "scheduler",
    "scheduler/roost/worker": "worker",
    "triggerer/roost/triggerer": "triggerer",
}


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """(method, name) of every call of a stats method with names written out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("incr", "timing", "gauge")
            and node.args
        ):
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node.func.attr, part.value


def emitted() -> set[tuple[str, str]]:
    """(daemon, name of a metric)."""
    kinds = {"incr": "counter", "timing": "timer", "gauge": "gauge"}
    found = set()
    for folder, daemon in DAEMONS.items():
        for path in sorted((HERE.parent / folder).rglob("*.py")):
            for method, name in calls(path):
                metric = find(name)
                assert metric.kind == kinds[method], f"{path.name}: {method}({name!r})"
                found.add((daemon, metric.name))
    return found


def test_every_counter_and_timer_is_emitted_by_the_daemons_the_registry_names() -> None:
    wanted = {
        (daemon, metric.name)
        for metric in METRICS
        for daemon in metric.daemons
        # Gauges come from gauges_from (test_gauges.py), drops from the client itself.
        if metric.kind != "gauge" and metric.name != "statsd.dropped"
    }
    found = {(daemon, name) for daemon, name in emitted() if find(name).kind != "gauge"}
    assert found - wanted == set()
    assert wanted - found == set()


def test_gauges_are_set_by_the_scheduler_alone() -> None:
    assert {d for d, name in emitted() if find(name).kind == "gauge"} <= {"scheduler"}
