"""``roost dags``: the table of its commands."""

from __future__ import annotations

import click

from roost.cli.base import Lazy, LazyGroup

__all__ = ["dags"]

_COMMANDS = {
    "list": Lazy("roost.cli.dag_listing:list_", "List the DAGs."),
    "list-import-errors": Lazy(
        "roost.cli.dag_listing:list_import_errors", "List the DAG files that cannot be imported."
    ),
    "list-runs": Lazy("roost.cli.dag_listing:list_runs", "List the runs of a DAG, newest first."),
    "details": Lazy("roost.cli.dag_details:details", "Show everything known about a DAG."),
    "show": Lazy("roost.cli.dag_show:show", "Draw a DAG's tasks and what follows what."),
    "state": Lazy("roost.cli.dag_listing:state", "Print the state of a run."),
    "next-execution": Lazy(
        "roost.cli.dag_next:next_execution", "Print when the next scheduled runs start."
    ),
    "trigger": Lazy("roost.cli.dag_trigger:trigger", "Start a run by hand."),
    "pause": Lazy("roost.cli.dag_pause:pause", "Stop creating and starting runs of a DAG."),
    "unpause": Lazy("roost.cli.dag_pause:unpause", "Let a DAG run again."),
    "backfill": Lazy(
        "roost.cli.backfill:backfill",
        "Run the intervals of a DAG's schedule between two logical dates.",
    ),
    "clear": Lazy("roost.cli.clear:clear_dag", "Let whole runs of a DAG run again."),
    "mark": Lazy("roost.cli.mark:mark_run", "Say that a run succeeded or failed."),
    "sla-misses": Lazy(
        "roost.cli.sla_misses:sla_misses",
        "List the SLA misses, of one DAG or of all, newest first.",
    ),
    "delete": Lazy("roost.cli.dag_delete:delete", "Delete what is known of a DAG."),
    "test": Lazy("roost.cli.dag_test:test", "Run a DAG in this process, without any daemon."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def dags() -> None:
    """List, trigger, pause and test DAGs."""
