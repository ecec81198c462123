"""``roost dags sla-misses``: which tasks were late."""

from __future__ import annotations

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.output import emit, iso, output_option
from roost.cli.session import reading
from roost.models.queries import slas

__all__ = ["sla_misses"]

_COLUMNS = (
    "dag_id",
    "task_id",
    "logical_date",
    "timestamp",
    "email_sent",
    "notification_sent",
)


@click.command("sla-misses", cls=Command)
@click.argument("dag_id", required=False)
@output_option
def sla_misses(dag_id: str | None, output: str) -> None:
    """List the SLA misses, of one DAG or of all, newest first."""
    with reading() as (config, tx):
        if dag_id is not None:
            find_dag(tx, config, dag_id)
        rows = [
            {
                "dag_id": row.dag_id,
                "task_id": row.task_id,
                "logical_date": iso(row.logical_date),
                "timestamp": iso(row.timestamp),
                "email_sent": bool(row.email_sent),
                "notification_sent": bool(row.notification_sent),
            }
            for row in slas.sla_miss_rows(tx, dag_id)
        ]
    emit(rows, _COLUMNS, output)
