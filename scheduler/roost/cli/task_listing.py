"""The listings of ``roost tasks``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag, find_instance, find_run
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.models.queries import listing
from roost.models.states import State
from roost.support.clock import SECOND

__all__ = ["instance_arguments", "list_", "state", "states_for_dag_run"]

F = TypeVar("F", bound=Callable[..., Any])
_TASK_COLUMNS = (
    "task_id", "operator", "trigger_rule", "pool", "queue", "priority_weight", "retries",
    "downstream",
)  # fmt: skip
_STATE_COLUMNS = (
    "task_id", "map_index", "state", "try_number", "start_date", "end_date", "duration",
    "hostname",
)  # fmt: skip


def instance_arguments(command: F) -> F:
    """DAG_ID RUN_ID TASK_ID and --map-index: one task instance."""
    for decorate in (
        click.option("--map-index", default=-1, help="Of a mapped task."),
        click.argument("task_id"),
        click.argument("run_id"),
        click.argument("dag_id"),
    ):
        command = decorate(command)
    return command


@click.command("list", cls=Command)
@click.argument("dag_id")
@output_option
def list_(dag_id: str, output: str) -> None:
    """List the tasks of a DAG, every one after its upstream."""
    with reading() as (config, tx):
        _, dag = find_dag(tx, config, dag_id)
    rows = [{name: getattr(task, name) for name in _TASK_COLUMNS} for task in dag.tasks]
    emit(rows, _TASK_COLUMNS, output)


@click.command("states-for-dag-run", cls=Command)
@click.argument("dag_id")
@click.argument("run_id")
@output_option
def states_for_dag_run(dag_id: str, run_id: str, output: str) -> None:
    """List the task instances of a run; with their names, where a map_index_template gave any."""
    with reading() as (config, tx):
        run = find_run(tx, config, dag_id, run_id)
        found = listing.instance_rows(tx, run.id)
    named = any(row.map_name is not None for row in found)
    columns = (*_STATE_COLUMNS, "map_name") if named else _STATE_COLUMNS
    emit([_state_row(row) for row in found], columns, output)


def _state_row(row: Any) -> dict[str, Any]:
    ended = row.start_date is not None and row.end_date is not None
    return {
        "task_id": row.task_id,
        "map_index": row.map_index,
        "state": None if row.state == State.NONE else row.state,
        "try_number": row.try_number,
        "start_date": iso(row.start_date),
        "end_date": iso(row.end_date),
        "duration": (row.end_date - row.start_date) / SECOND if ended else None,
        "hostname": row.hostname,
        "map_name": row.map_name,
    }


@click.command(cls=Command)
@instance_arguments
def state(dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
    """Print the state of a task instance; `none` before anything was decided."""
    with reading() as (config, tx):
        run = find_run(tx, config, dag_id, run_id)
        row = find_instance(tx, run, task_id, map_index)
    click.echo(State.NONE if row is None else row.state)
