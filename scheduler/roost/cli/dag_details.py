"""``roost dags details``: everything that is known about a DAG, its documentation too (S69)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.dag.model import SerializedDag, SerializedTask
from roost.models.queries import listing
from roost.support.clock import SECOND

__all__ = ["details"]

_DOCS = ("doc", "doc_md", "doc_json", "doc_yaml", "doc_rst")


@click.command(cls=Command)
@click.argument("dag_id")
@output_option
def details(dag_id: str, output: str) -> None:
    """Show everything known about a DAG.

    Its schedule, limits, params with their schemas, documentation and tasks.
    """
    with reading() as (config, tx):
        row, dag = find_dag(tx, config, dag_id)
        versions = listing.version_count(tx, dag_id)
        facts = list(_facts(row, dag, versions, config.dags_folder))
    table = output in ("table", "plain")
    lines = _lines(facts) if table else facts
    emit(
        [{"property_name": name, "property_value": value} for name, value in lines],
        ("property_name", "property_value"),
        output,
    )


def _facts(row: Any, dag: SerializedDag, versions: int, folder: Path) -> Iterator[tuple[str, Any]]:
    yield "dag_id", row.dag_id
    yield "fileloc", str(folder / row.fileloc)
    yield "is_active", bool(row.is_active)
    yield "is_paused", bool(row.is_paused)
    yield "paused_because", row.paused_reason
    yield "description", row.description
    yield "owners", ", ".join(json.loads(row.owners))
    yield "tags", ", ".join(json.loads(row.tags))
    yield "doc_md", dag.doc_md
    yield "schedule", row.schedule
    yield "timetable", dag.timetable.kind
    yield "timezone", dag.timetable.timezone
    yield "start_date", iso(dag.start_date)
    yield "end_date", iso(dag.end_date)
    yield "catchup", dag.catchup
    yield "next_run", iso(row.next_run_after)
    yield "next_interval_start", iso(row.next_interval_start)
    yield "next_interval_end", iso(row.next_interval_end)
    yield "max_active_runs", dag.max_active_runs
    yield "active_runs", row.runs or 0
    yield "max_active_tasks", dag.max_active_tasks
    yield "dagrun_timeout_s", _seconds(dag.dagrun_timeout_us)
    yield "fail_fast", dag.fail_fast
    yield "max_consecutive_failed_dag_runs", dag.max_consecutive_failed_dag_runs
    yield "default_args", dag.extra.get("default_args") or None
    yield "params", _params(dag)
    yield "version", row.version_id
    yield "versions", versions
    yield "code_hash", row.code_hash
    yield "updated_at", iso(row.updated_at)
    yield "tasks", len(dag.tasks)
    yield "task_details", [_task(task) for task in dag.tasks]


def _params(dag: SerializedDag) -> dict[str, Any]:
    described = dag.extra.get("params", {})
    return {
        name: {
            **({"default": dag.params[name]} if name in dag.params else {}),
            **described.get(name, {}),
        }
        for name in {**dag.params, **described}
    }


def _task(task: SerializedTask) -> dict[str, Any]:
    docs = {name: task.extra[name] for name in _DOCS if name in task.extra}
    return {
        "task_id": task.task_id,
        "operator": task.operator,
        "owner": task.owner,
        "pool": task.pool,
        "pool_slots": task.pool_slots,
        "queue": task.queue,
        "priority_weight": task.priority_weight,
        "trigger_rule": task.trigger_rule,
        "retries": task.retries,
        "execution_timeout_s": _seconds(task.execution_timeout_us),
        "downstream": task.downstream,
        "params": task.extra.get("params") or {},
        **docs,
    }


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / SECOND


def _lines(facts: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """For eyes: a line for each param and task, and one for each text that documents it."""
    for name, value in facts:
        if name == "params":
            for param, about in value.items():
                yield f"param {param}", json.dumps(about, ensure_ascii=False)
        elif name == "default_args":
            yield name, json.dumps(value, ensure_ascii=False) if value else None
        elif name == "task_details":
            for task in value:
                knobs = f"{task['operator']}, pool {task['pool']}, queue {task['queue']}, "
                yield f"task {task['task_id']}", f"{knobs}{task['trigger_rule']}"
                for doc in _DOCS:
                    if doc in task:
                        yield f"task {task['task_id']} {doc}", task[doc]
        else:
            yield name, value
