"""``roost dags delete``."""

from __future__ import annotations

import click

from roost.cli import choose
from roost.cli.base import Command
from roost.cli.lookup import find_dag
from roost.cli.session import database, ring
from roost.exceptions import RoostException
from roost.models.engine import Tx, read, transact
from roost.models.queries import deletion, user_edits
from roost.support.config import Config

__all__ = ["delete"]


@click.command(cls=Command)
@click.argument("dag_id")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
def delete(dag_id: str, dry_run: bool, yes: bool) -> None:
    """Delete what is known of a DAG: its runs with their XComs and their history.

    Refused while a run of it is active. Where a file still defines the DAG, -y is needed: it comes
    back at once, as if it were new. Logs of tasks and runs of sub-DAGs stay.
    """
    with database() as (config, engine):
        with read(engine) as tx:
            fileloc = _check(tx, config, dag_id)
            runs, instances = deletion.count_rows(tx, dag_id)
        what = f"DAG {dag_id} with {runs} runs and {instances} task instances"
        if dry_run:
            click.echo(f"would delete {what}")
            return
        if not yes:
            _ask(dag_id, fileloc, what)

        def step(tx: Tx) -> None:
            user_edits.lock(tx, [])
            deletion.lock_dag(tx, dag_id)
            _check(tx, config, dag_id)
            deletion.delete_dag(tx, dag_id)

        transact(engine, step)
        ring(config, engine)
    click.echo(f"deleted {what}")
    if fileloc is not None:
        click.echo(f"{fileloc} still defines it: it comes back as a new DAG", err=True)


def _ask(dag_id: str, fileloc: str | None, what: str) -> None:
    if fileloc is not None:
        raise RoostException(
            f"DAG {dag_id!r} is still defined by {fileloc} and would come back as a new one; "
            "take it out of the file first, or give -y"
        )
    if not choose.has_terminal():
        raise RoostException(
            f"this would delete {what}, and there is no terminal to ask at; give -y"
        )
    click.confirm(f"Delete {what}?", abort=True)


def _check(tx: Tx, config: Config, dag_id: str) -> str | None:
    """The file that still defines the DAG, if any.

    Raises:
        NotFound: there is no such DAG.
        RoostException: runs of it are active.
    """
    row, _ = find_dag(tx, config, dag_id)
    active = deletion.active_runs(tx, dag_id)
    if active:
        raise RoostException(
            f"{len(active)} run(s) of {dag_id} are active, {active[0]} is one; wait for them, or "
            f"end them with `roost dags mark {dag_id} RUN_ID failed`"
        )
    return str(row.fileloc) if row.is_active else None
