"""``roost dags clear`` and ``roost tasks clear``: have task instances run again (S97)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from sqlalchemy import Engine

from roost.cli.base import Command
from roost.cli.choose import (
    Chosen,
    Wanted,
    agreed,
    ask_options,
    choose,
    range_options,
    runs_of,
    states_of,
    told,
)
from roost.cli.lookup import find_dag, hindrances
from roost.cli.session import database, ring
from roost.models import state_edits
from roost.models.engine import read, transact
from roost.support.config import Config

__all__ = ["clear_dag", "clear_tasks", "ring_all"]

_keep_version = click.option(
    "--keep-version", is_flag=True,
    help="Let ended runs keep the version of the DAG file that they ran.",
)  # fmt: skip
_only_failed = click.option(
    "-f", "--only-failed", is_flag=True, help="Only what is failed or upstream_failed."
)
_only_running = click.option("-r", "--only-running", is_flag=True, help="Only what is running.")
_exclude_subdags = click.option(
    "--exclude-subdags", is_flag=True, help="Leave alone the runs that SubDagOperators started."
)


@click.command("clear", cls=Command)
@click.argument("dag_id")
@range_options
@_only_failed
@_only_running
@_exclude_subdags
@_keep_version
@ask_options
def clear_dag(
    dag_id: str,
    run_id: tuple[str, ...],
    start_date: str | None,
    end_date: str | None,
    only_failed: bool,
    only_running: bool,
    exclude_subdags: bool,
    keep_version: bool,
    **asking: Any,
) -> None:
    """Let whole runs of a DAG run again.

    Lists the task instances and asks. What runs is killed first. Each cleared task has all its
    retries again; a run that had ended is queued again, on the newest version of its DAG file.
    """
    wanted = Wanted(states=states_of(only_failed, only_running), subdags=not exclude_subdags)
    _clear(dag_id, (run_id, start_date, end_date), wanted, keep_version, **asking)


@click.command("clear", cls=Command)
@click.argument("dag_id")
@click.option("-t", "--task-regex", help="Tasks whose id has a match of it; by default all.")
@range_options
@click.option("-u", "--upstream", is_flag=True, help="Also all that comes before those tasks.")
@click.option("-d", "--downstream", is_flag=True, help="Also all that comes after those tasks.")
@_only_failed
@_only_running
@click.option(
    "--map-index", type=int, help="Only this instance of the mapped tasks, and of their group."
)
@_exclude_subdags
@_keep_version
@ask_options
def clear_tasks(
    dag_id: str,
    task_regex: str | None,
    run_id: tuple[str, ...],
    start_date: str | None,
    end_date: str | None,
    upstream: bool,
    downstream: bool,
    only_failed: bool,
    only_running: bool,
    map_index: int | None,
    exclude_subdags: bool,
    keep_version: bool,
    **asking: Any,
) -> None:
    """Let tasks run again, in the runs that are named.

    Lists the task instances and asks. What runs is killed first. Each cleared task has all its
    retries again; a run that had ended is queued again, on the newest version of its DAG file.
    """
    wanted = Wanted(
        task_regex,
        upstream,
        downstream,
        states_of(only_failed, only_running),
        map_index,
        not exclude_subdags,
    )
    _clear(dag_id, (run_id, start_date, end_date), wanted, keep_version, **asking)


def _clear(
    dag_id: str,
    range_: tuple[Sequence[str], str | None, str | None],
    wanted: Wanted,
    keep_version: bool,
    *,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    with database() as (config, engine):
        with read(engine) as tx:
            row, dag = find_dag(tx, config, dag_id)
            runs = runs_of(tx, config, dag_id, *range_)
            chosen = choose(tx, dag, runs, wanted)
            warnings = hindrances(tx, config, row)
        if not chosen:
            click.echo(f"nothing to clear in {len(runs)} run(s) of {dag_id}", err=True)
            return
        question = f"Clear these {len(chosen)} task instances?"
        if not agreed(chosen, question, dry_run=dry_run, yes=yes, output=output):
            return
        _do(config, engine, chosen, keep_version)
    for warning in warnings:
        click.echo(warning, err=True)


def _do(config: Config, engine: Engine, chosen: Sequence[Chosen], keep_version: bool) -> None:
    ids = [one.id for one in chosen]
    edited = transact(
        engine, lambda tx: state_edits.clear(tx, ids, actor="cli", keep_version=keep_version)
    )
    ring_all(config, engine, wished=edited.wished)
    click.echo(told("cleared", edited))


def ring_all(config: Config, engine: Engine, *, wished: int) -> None:
    """Wake those who do the rest: schedulers, triggerers for what waited in them, and workers
    where something is to be killed."""
    ring(config, engine)
    ring(config, engine, "triggerer")
    if wished:
        ring(config, engine, "worker")
