"""``roost tasks why`` and ``tasks failed-deps``."""

from __future__ import annotations

import click
import msgspec

from roost.cli.base import Command
from roost.cli.blocked import reason, unmet
from roost.cli.lookup import find_instance, find_run
from roost.cli.output import emit, output_option
from roost.cli.session import reading
from roost.cli.snapshot import Snapshot, take
from roost.cli.task_listing import instance_arguments

__all__ = ["failed_deps", "why"]


def _look(dag_id: str, run_id: str, task_id: str, map_index: int) -> Snapshot:
    with reading() as (config, tx):
        run = find_run(tx, config, dag_id, run_id)
        row = find_instance(tx, run, task_id, map_index)
        return take(tx, config, run, task_id, row)


@click.command(cls=Command)
@instance_arguments
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line, or an object with kind, text and numbers.",
)
def why(dag_id: str, run_id: str, task_id: str, map_index: int, output: str) -> None:
    """Say why a task instance does not run: the first thing in its way.

    Exactly one reason, with its numbers: which upstream, which limit, which pool, the place in
    line, what it is deferred on; or that it runs, or how it ended.
    """
    found = reason(_look(dag_id, run_id, task_id, map_index))
    if output == "json":
        text = msgspec.json.encode(
            {"kind": found.kind, "text": found.text, "numbers": found.numbers}
        )
        click.echo(msgspec.json.format(text, indent=2))
    else:
        click.echo(found.text)


@click.command("failed-deps", cls=Command)
@instance_arguments
@output_option
def failed_deps(dag_id: str, run_id: str, task_id: str, map_index: int, output: str) -> None:
    """List everything that a task instance still needs before it starts.

    Nothing is listed of one that has started, or that the next pass of the scheduler takes up.
    """
    found = unmet(_look(dag_id, run_id, task_id, map_index))
    emit([{"kind": one.kind, "reason": one.text} for one in found], ("kind", "reason"), output)
