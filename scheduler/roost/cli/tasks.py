"""``roost tasks``: the table of its commands."""

from __future__ import annotations

import click

from roost.cli.base import Lazy, LazyGroup

__all__ = ["tasks"]

_COMMANDS = {
    "list": Lazy("roost.cli.task_listing:list_", "List the tasks of a DAG."),
    "states-for-dag-run": Lazy(
        "roost.cli.task_listing:states_for_dag_run", "List the task instances of a run."
    ),
    "state": Lazy("roost.cli.task_listing:state", "Print the state of a task instance."),
    "why": Lazy("roost.cli.task_why:why", "Say why a task instance does not run."),
    "failed-deps": Lazy(
        "roost.cli.task_why:failed_deps",
        "List everything that a task instance still needs before it starts.",
    ),
    "render": Lazy(
        "roost.cli.task_render:render", "Print a task's template fields, rendered for a run."
    ),
    "logs": Lazy("roost.cli.task_logs:logs", "Print the log of a task instance."),
    "clear": Lazy("roost.cli.clear:clear_tasks", "Let tasks run again."),
    "mark": Lazy("roost.cli.mark:mark_task", "Say that a task succeeded, failed or was skipped."),
    "test": Lazy("roost.cli.dag_test:test_task", "Run one task here, without any daemon."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def tasks() -> None:
    """Ask about tasks and their instances."""
