"""``roost dags trigger``: a run by hand (S27), and watching it with ``--wait``."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy import Engine

from roost.cli.base import Command
from roost.cli.lookup import find_dag, hindrances
from roost.cli.output import emit, iso, output_option
from roost.cli.session import database, ring
from roost.cli.watch import follow_run
from roost.cli.words import conf_of, moment_of
from roost.dag.param import param_scopes
from roost.dag.param_check import check_conf
from roost.dag.timetable import infer_manual_interval
from roost.exceptions import RoostException
from roost.models.engine import Tx, read, transact
from roost.models.queries import listing
from roost.models.queries.event_tail import EventTail
from roost.models.transitions import NewRun, create_run
from roost.support import typedjson
from roost.support.clock import now_us
from roost.support.config import Config

__all__ = ["trigger"]

_COLUMNS = ("dag_id", "run_id", "run_type", "state", "logical_date")
_RESERVED = ("scheduled__", "backfill__")


def _check_run_id(_ctx: click.Context, _param: click.Parameter, run_id: str | None) -> str | None:
    if run_id is None:
        return None
    if run_id.startswith(_RESERVED):
        # It would take the place of a run that the scheduler has yet to create.
        raise click.BadParameter(f"{' and '.join(_RESERVED)} begin ids of the scheduler's own runs")
    if not run_id.strip() or len(run_id) > 250 or not run_id.isprintable():
        raise click.BadParameter("give 1 to 250 printable characters")
    return run_id


@click.command(cls=Command)
@click.argument("dag_id")
@click.option("--conf", callback=conf_of, help="JSON object for the run's conf.")
@click.option("--run-id", callback=_check_run_id, help="Instead of manual__<logical date>.")
@click.option(
    "--logical-date", help="ISO 8601, by default now; without a zone in core.default_timezone."
)
@click.option(
    "--exist-ok", is_flag=True, help="With --run-id: be content with the run if there is one."
)
@click.option("--wait", is_flag=True, help="Show progress to the end; exit code 1 on failure.")
@output_option
@click.pass_context
def trigger(
    ctx: click.Context,
    dag_id: str,
    conf: str,
    run_id: str | None,
    logical_date: str | None,
    exist_ok: bool,
    wait: bool,
    output: str,
) -> None:
    """Start a run by hand.

    The same run id twice is an error, so a script that repeats itself starts one run. With
    --exist-ok the second time does nothing, and --wait waits for the run that is there.
    """
    table = output == "table"
    with database() as (config, engine):
        zone = config.core.default_timezone
        at = now_us() if logical_date is None else moment_of(logical_date, zone)
        there = _there(engine, dag_id, run_id) if exist_ok else None
        run, tail, warnings = there or _create(engine, config, dag_id, run_id, at, conf)
        ring(config, engine)
        for warning in warnings:
            click.echo(warning, err=True)
        if table:
            what = f"{dag_id} has run {run.run_id} already ({run.state})"
            click.echo(what if there else f"triggered {dag_id}: run {run.run_id}")
        if wait:
            try:
                run = follow_run(config, engine, run, tail, err=not table)
            except KeyboardInterrupt:
                asks = f"`roost dags state {dag_id} {run.run_id}` tells how it is"
                click.echo(f"the run goes on; {asks}", err=True)
                raise
    if not table:
        emit([{**run._asdict(), "logical_date": iso(run.logical_date)}], _COLUMNS, output)
    if wait and run.state != "success":
        ctx.exit(1)


def _there(
    engine: Engine, dag_id: str, run_id: str | None
) -> tuple[Any, EventTail, list[str]] | None:
    """The run of that id, as :func:`_create` gives one.

    Raises:
        UsageError: no id was given, so each run is another.
    """
    if run_id is None:
        raise click.UsageError("--exist-ok needs --run-id")
    with read(engine) as tx:
        tail = EventTail(tx)
        row = listing.run_row(tx, dag_id, run_id)
        if row is None:
            return None
        tail.run_key = row.id
        return row, tail, []


def _create(
    engine: Engine, config: Config, dag_id: str, run_id: str | None, at: int, conf: str
) -> tuple[Any, EventTail, list[str]]:
    """Insert the run in state queued; gives its row and what its user should know.

    Raises:
        NotFound: the DAG was never parsed.
        ParamError: the conf breaks the schema of a param.
        RoostException: its file no longer defines it, or the run exists.
    """
    name = run_id or f"manual__{iso(at)}"

    def step(tx: Tx) -> tuple[Any, EventTail, list[str]]:
        tail = EventTail(tx)
        row, dag = find_dag(tx, config, dag_id)
        if not row.is_active:
            raise RoostException(
                f"DAG {dag_id!r} is no longer defined by {config.dags_folder / row.fileloc}; "
                "put it back and wait a few seconds"
            )
        given: Any = typedjson.decode(conf)
        check_conf(param_scopes(dag), given, overrides=config.core.dag_run_conf_overrides_params)
        interval = infer_manual_interval(dag.timetable, at)
        new = NewRun(
            dag_id=dag_id,
            run_id=name,
            run_type="manual",
            version_id=row.version_id,
            logical_date=at,
            interval_start=interval.start,
            interval_end=interval.end,
            run_after=now_us(),
            conf=conf,
        )
        tail.run_key = create_run(tx, new, actor="cli")
        if tail.run_key is None:
            there = listing.run_row(tx, dag_id, name)
            state = f" ({there.state})" if there else ""
            raise RoostException(
                f"run {name!r} of {dag_id} exists already{state}; give another --run-id, or "
                "--exist-ok"
            )
        return listing.run_row(tx, dag_id, name), tail, hindrances(tx, config, row)

    return transact(engine, step)
