"""``roost tasks mark`` and ``roost dags mark``: say how something ended, whatever it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import click

from roost.cli.base import Command
from roost.cli.choose import Chosen, agreed, ask_options, family, of_instance, told
from roost.cli.clear import ring_all
from roost.cli.lookup import find_dag, find_instance, find_run, graph_of_run, hindrances
from roost.cli.output import paint
from roost.cli.session import database
from roost.dag.model import SerializedDag
from roost.models import state_edits
from roost.models.engine import Tx, read, transact
from roost.models.queries import selection, user_edits
from roost.models.queries.selection import SelectedRun
from roost.models.state_edits import Edited, Mark
from roost.models.states import FINISHED, IN_FLIGHT, State

__all__ = ["mark_run", "mark_task"]


@click.command("mark", cls=Command)
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@click.argument("state", type=click.Choice(["success", "failed", "skipped"]))
@click.option(
    "--map-index", type=int, help="Only this instance of the mapped task, and of its group."
)
@click.option("-u", "--upstream", is_flag=True, help="Also all that comes before the task.")
@click.option("-d", "--downstream", is_flag=True, help="Also all that comes after the task.")
@click.option("--past", is_flag=True, help="Also in every earlier run, by logical date.")
@click.option("--future", is_flag=True, help="Also in every later run that exists.")
@ask_options
def mark_task(
    dag_id: str,
    run_id: str,
    task_id: str,
    state: Mark,
    map_index: int | None,
    upstream: bool,
    downstream: bool,
    past: bool,
    future: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Say that a task succeeded, failed or was skipped.

    Lists the task instances and asks. What runs is killed first. Where something is marked success
    or skipped, what could not run because of it (upstream_failed) is cleared, so that the run
    goes on. Runs of sub-DAGs are left alone.
    """
    with database() as (config, engine):
        with read(engine) as tx:
            row, _ = find_dag(tx, config, dag_id)
            run = find_run(tx, config, dag_id, run_id)
            dag = graph_of_run(tx, run)
            if map_index is not None or task_id not in {task.task_id for task in dag.tasks}:
                find_instance(tx, run, task_id, -1 if map_index is None else map_index)
            runs = _runs(tx, run, past, future)
            names = family(dag, [task_id], upstream=upstream, downstream=downstream)
            meant = of_instance(dag, [task_id], map_index)
            marked, cleared = _chosen(tx, dag, runs, names, state, meant)
            warnings = hindrances(tx, config, row)
        if not marked:
            click.echo(f"nothing to mark: {task_id} is {state} already", err=True)
            return
        question = f"Mark {len(marked)} task instances {state}, clear {len(cleared)}?"
        if not agreed([*marked, *cleared], question, dry_run=dry_run, yes=yes, output=output):
            return

        def step(tx: Tx) -> tuple[Edited, Edited]:
            done = state_edits.mark(tx, [one.id for one in marked], state, actor="cli")
            again = [one.id for one in cleared]
            return done, state_edits.clear(tx, again, actor="cli", keep_version=True)

        done, again = transact(engine, step)
        ring_all(config, engine, wished=done.wished + again.wished)
    click.echo(told(f"marked {paint(state)}", done))
    if again.moved:
        click.echo(told("cleared", again) + ", which had not run because of it")
    for warning in warnings:
        click.echo(warning, err=True)


def _runs(tx: Tx, run: Any, past: bool, future: bool) -> list[SelectedRun]:
    at = run.run_after if run.logical_date is None else run.logical_date
    runs = selection.runs_named(tx, run.dag_id, [run.run_id])
    if past:
        runs += selection.runs_between(tx, run.dag_id, None, at - 1)
    if future:
        runs += selection.runs_between(tx, run.dag_id, at + 1, None)
    return runs


def _chosen(
    tx: Tx,
    dag: SerializedDag,
    runs: Sequence[SelectedRun],
    names: set[str],
    state: Mark,
    meant: Callable[[Any], bool],
) -> tuple[list[Chosen], list[Chosen]]:
    """What is to be marked, and what is cleared along with it."""
    run_ids = {run.id: run.run_id for run in runs}
    rows = user_edits.instances_of_runs(tx, run_ids)

    def listed(row: Any, becomes: str) -> Chosen:
        run_id = run_ids[row.dag_run_id]
        return Chosen(row.id, dag.dag_id, run_id, row.task_id, row.map_index, row.state, becomes)

    marked = [
        listed(row, state)
        for row in rows
        if row.task_id in names and row.state not in (state, State.REMOVED) and meant(row)
    ]
    if state == "failed":
        return marked, []
    after = family(dag, names, upstream=False, downstream=True) - names
    return marked, [
        listed(row, State.NONE)
        for row in rows
        if row.task_id in after and row.state == State.UPSTREAM_FAILED and meant(row)
    ]


@click.command("mark", cls=Command)
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("state", type=click.Choice(["success", "failed"]))
@ask_options
def mark_run(
    dag_id: str,
    run_id: str,
    state: Literal["success", "failed"],
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Say that a run succeeded or failed.

    `success` marks its task instances so too, but for those that are skipped. `failed` kills what
    runs, marks that failed, and skips what has not ended. Lists them and asks.
    """
    with database() as (config, engine):
        with read(engine) as tx:
            run = find_run(tx, config, dag_id, run_id)
            rows = [
                Chosen(row.id, dag_id, run_id, row.task_id, row.map_index, row.state, becomes)
                for row in user_edits.instances_of_runs(tx, [run.id])
                if (becomes := _becomes(row.state, state)) is not None
            ]
        if run.state == state and not rows:
            click.echo(f"nothing to mark: run {run_id} of {dag_id} is {state} already", err=True)
            return
        question = f"Mark run {run_id} of {dag_id} {state}, with these {len(rows)} task instances?"
        if not agreed(rows, question, dry_run=dry_run, yes=yes, output=output):
            return
        edited = transact(engine, lambda tx: state_edits.mark_run(tx, run.id, state, actor="cli"))
        ring_all(config, engine, wished=edited.wished)
        with read(engine) as tx:
            now = find_run(tx, config, dag_id, run_id)
    click.echo(told(f"marked {paint(state)}", edited))
    if now.end_date is None:
        click.echo(f"run {run_id} is {now.state} until its scheduler has ended it", err=True)


def _becomes(state: str, wanted: str) -> str | None:
    """What a task instance becomes when its run is marked; None: it stays what it is."""
    if wanted == "success":
        kept = {State.SUCCESS, State.SKIPPED, State.REMOVED}
        return None if state in kept else State.SUCCESS
    if state in FINISHED:
        return None
    return State.FAILED if state in IN_FLIGHT else State.SKIPPED
