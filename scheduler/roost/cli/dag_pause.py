"""``roost dags pause`` and ``unpause``."""

from __future__ import annotations

import click

from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.session import database, ring
from roost.models.engine import Tx, transact
from roost.models.queries.edits import pause_dag

__all__ = ["pause", "unpause"]


def _set(dag_id: str, paused: bool) -> None:
    with database() as (config, engine):

        def step(tx: Tx) -> bool:
            find_dag(tx, config, dag_id)
            return pause_dag(tx, dag_id, paused)

        changed = transact(engine, step)
        ring(config, engine)
        ring(config, engine, "triggerer")
    word = "paused" if paused else "unpaused"
    click.echo(f"{dag_id} is {word}" if changed else f"{dag_id} is {word} already")


@click.command(cls=Command)
@click.argument("dag_id")
def pause(dag_id: str) -> None:
    """Stop creating and starting runs of a DAG.

    Tasks that are queued or run go on; nothing else of it starts.
    """
    _set(dag_id, True)


@click.command(cls=Command)
@click.argument("dag_id")
def unpause(dag_id: str) -> None:
    """Let a DAG run again."""
    _set(dag_id, False)
