"""``roost dags next-execution``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.output import iso
from roost.cli.session import reading
from roost.dag.model import SerializedDag, Upcoming
from roost.dag.timetable import following_run
from roost.support.clock import now_us

__all__ = ["next_execution"]


@click.command("next-execution", cls=Command)
@click.argument("dag_id")
@click.option(
    "-n", "--num-executions", type=click.IntRange(1), default=1, show_default=True,
    help="How many of the next runs.",
)  # fmt: skip
def next_execution(dag_id: str, num_executions: int) -> None:
    """Print when the next scheduled runs start.

    One ISO 8601 moment in UTC a line, and None where there is no further run.
    """
    with reading() as (config, tx):
        row, dag = find_dag(tx, config, dag_id)
    if row.is_paused:
        click.echo(f"{dag_id} is paused; this is when it would run", err=True)
    for moment in _next_moments(row, dag, num_executions):
        click.echo(iso(moment) or "None")


def _next_moments(row: Any, dag: SerializedDag, wanted: int) -> Iterator[int | None]:
    listed = None
    if dag.timetable.kind == "custom":
        listed = msgspec.json.decode(row.upcoming, type=Upcoming)
    moment = row.next_run_after
    last = (row.next_interval_start, row.next_interval_end)
    for _ in range(wanted):
        yield moment
        if moment is None:
            return
        # What follows is asked as of the moment at which the one before starts.
        info = following_run(dag, listed, last, max(moment, now_us()))
        if info is None:
            moment = None
        else:
            moment, last = info.run_after, (info.interval_start, info.interval_end)
