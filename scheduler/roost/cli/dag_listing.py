"""The listings of ``roost dags``."""

from __future__ import annotations

import json

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag, find_run
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.models.queries import listing
from roost.models.states import RunState

__all__ = ["list_", "list_import_errors", "list_runs", "state"]

_RUN_COLUMNS = (
    "dag_id", "run_id", "run_type", "state", "logical_date", "data_interval_start",
    "data_interval_end", "queued_at", "start_date", "end_date",
)  # fmt: skip


@click.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List the DAGs."""
    with reading() as (config, tx):
        rows = [
            {
                "dag_id": row.dag_id,
                "fileloc": str(config.dags_folder / row.fileloc),
                "owners": ", ".join(json.loads(row.owners)),
                "is_paused": bool(row.is_paused),
                "schedule": row.schedule,
                "next_run": iso(row.next_run_after),
            }
            for row in listing.dag_rows(tx)
        ]
        errors = len(listing.import_errors(tx))
    emit(rows, ("dag_id", "fileloc", "owners", "is_paused", "schedule", "next_run"), output)
    if errors:
        hint = "see `roost dags list-import-errors`"
        click.echo(f"{errors} DAG file(s) cannot be imported; {hint}", err=True)


@click.command("list-import-errors", cls=Command)
@output_option
def list_import_errors(output: str) -> None:
    """List the DAG files that cannot be imported.

    The last good version of such a file stays scheduled.
    """
    with reading() as (config, tx):
        rows = [
            {
                "filepath": str(config.dags_folder / row.fileloc),
                "error": row.error.rstrip(),
                "parsed_at": iso(row.parsed_at),
            }
            for row in listing.import_errors(tx)
        ]
    emit(rows, ("filepath", "error", "parsed_at"), output)


@click.command("list-runs", cls=Command)
@click.argument("dag_id")
@click.option(
    "--state", type=click.Choice([state.value for state in RunState]), help="Only in this state."
)
@output_option
def list_runs(dag_id: str, state: str | None, output: str) -> None:
    """List the runs of a DAG, newest first."""
    with reading() as (config, tx):
        find_dag(tx, config, dag_id)
        rows = [
            {
                "dag_id": row.dag_id,
                "run_id": row.run_id,
                "run_type": row.run_type,
                "state": row.state,
                "logical_date": iso(row.logical_date),
                "data_interval_start": iso(row.interval_start),
                "data_interval_end": iso(row.interval_end),
                "queued_at": iso(row.queued_at),
                "start_date": iso(row.start_date),
                "end_date": iso(row.end_date),
            }
            for row in listing.run_rows(tx, dag_id, state)
        ]
    emit(rows, _RUN_COLUMNS, output)


@click.command(cls=Command)
@click.argument("dag_id")
@click.argument("run_id")
def state(dag_id: str, run_id: str) -> None:
    """Print the state of a run."""
    with reading() as (config, tx):
        click.echo(find_run(tx, config, dag_id, run_id).state)
