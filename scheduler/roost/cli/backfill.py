"""``roost dags backfill``: run the intervals between two dates (H21)."""

from __future__ import annotations

from typing import Any, NamedTuple

import click
from sqlalchemy import Engine

from roost.cli.base import Command
from roost.cli.lookup import find_dag, hindrances
from roost.cli.output import emit, iso, output_option
from roost.cli.progress import follow_backfill
from roost.cli.session import database, reading, ring
from roost.cli.words import conf_of, moment_of
from roost.exceptions import NotFound, RoostException
from roost.models.backfill import (
    Reprocess,
    Slot,
    cancel,
    create_backfill,
    intervals,
    plan_backfill,
)
from roost.models.engine import Tx, read, transact
from roost.models.queries import backfills, runs, user_edits
from roost.support.clock import now_us
from roost.support.config import Config

__all__ = ["backfill"]

_SLOT_COLUMNS = ("logical_date", "run_id", "state", "action")
_LIST_COLUMNS = (
    "backfill_id", "from_date", "to_date", "state", "max_active_runs", "backwards", "reprocess",
    "created_at", "ended_at",
)  # fmt: skip


class _Wanted(NamedTuple):
    """What the options ask for."""

    first: int
    last: int
    backwards: bool
    max_active_runs: int
    reprocess: Reprocess
    conf: str


class _Started(NamedTuple):
    """A backfill that is under way: a new one, or the one that was there."""

    id: int
    total: int
    is_new: bool


@click.command(cls=Command)
@click.argument("dag_id")
@click.option("-s", "--start-date", help="First logical date (ISO 8601).")
@click.option("-e", "--end-date", help="Last logical date, included; by default the first.")
@click.option("--dry-run", is_flag=True, help="Only list the intervals and what they would get.")
@click.option(
    "--reverse", "--run-backwards", "backwards", is_flag=True, help="The newest interval first."
)
@click.option(
    "--max-active-runs",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Most of its runs at the same time; the DAG's own limit does not count them.",
)
@click.option(
    "--reprocess-behavior",
    "reprocess",
    type=click.Choice(["none", "failed", "completed"]),
    default="none",
    show_default=True,
    help="Which intervals that ran already to run again.",
)
@click.option("--conf", callback=conf_of, help="JSON object for the conf of every run.")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Show progress to the end; exit code 1 if a run failed.",
)
@click.option("--list", "manage", flag_value="list", help="List the backfills of the DAG instead.")
@click.option("--pause", "manage", flag_value="pause", help="Start no more runs of it.")
@click.option("--unpause", "manage", flag_value="unpause", help="Go on with it.")
@click.option(
    "--cancel",
    "manage",
    flag_value="cancel",
    help="Mark what has not started as failed; what runs goes on.",
)
@output_option
@click.pass_context
def backfill(
    ctx: click.Context,
    /,
    dag_id: str,
    start_date: str | None,
    end_date: str | None,
    dry_run: bool,
    wait: bool,
    manage: str | None,
    output: str,
    **options: Any,
) -> None:
    """Run the intervals of a DAG's schedule between two logical dates.

    Each interval gets one run, unless it has one: see --reprocess-behavior. The scheduler starts
    them, oldest first. The same command again goes on watching the backfill that is under way.
    --list, --pause, --unpause and --cancel are about the backfill of the DAG that is under way.
    """
    if manage == "list":
        _list(dag_id, output)
        return
    if manage is not None:
        _manage(dag_id, manage)
        return
    if start_date is None:
        raise click.UsageError("say from which logical date on: -s DATE, and -e DATE to the last")
    with database() as (config, engine):
        zone = config.core.default_timezone
        first = moment_of(start_date, zone)
        last = first if end_date is None else moment_of(end_date, zone)
        if last < first:
            raise click.UsageError(f"-s {start_date} is later than -e {end_date}")
        wanted = _Wanted(first, last, **options)
        if dry_run:
            with read(engine) as tx:
                slots = _slots(tx, config, dag_id, wanted)[1]
            emit([_slot_row(slot) for slot in slots], _SLOT_COLUMNS, output)
            return
        started = _start(engine, config, dag_id, wanted)
        if started is None:
            return
        if wait and follow_backfill(config, engine, dag_id, started.id):
            ctx.exit(1)


def _slots(tx: Tx, config: Config, dag_id: str, wanted: _Wanted) -> tuple[Any, list[Slot], Any]:
    row, dag = find_dag(tx, config, dag_id)
    if not row.is_active:
        raise RoostException(
            f"DAG {dag_id!r} is no longer defined by {config.dags_folder / row.fileloc}; "
            "put it back and wait a few seconds"
        )
    infos = intervals(dag, wanted.first, wanted.last, now_us())
    slots = plan_backfill(tx, dag, infos, wanted.reprocess, backwards=wanted.backwards)
    return row, slots, dag


def _slot_row(slot: Slot) -> dict[str, Any]:
    return {
        "logical_date": iso(slot.info.logical_date),
        "run_id": slot.run_id,
        "state": slot.state,
        "action": slot.action,
    }


def _start(engine: Engine, config: Config, dag_id: str, wanted: _Wanted) -> _Started | None:
    """Create the backfill, or find that it is there; None when there is nothing to do."""
    warnings: list[str] = []

    def step(tx: Tx) -> tuple[_Started | None, int, int]:
        warnings.clear()
        if wanted.reprocess != "none":
            user_edits.lock(tx, [])  # its locks come before those of the limits
        row, slots, dag = _slots(tx, config, dag_id, wanted)
        runs.lock_run_slots(tx, [dag_id])  # two commands at once: the second sees the first
        there = _under_way(tx, dag_id)
        if there is not None:
            return _attach(there, dag_id, wanted, tx), 0, 0
        # Read again: what another command has created meanwhile is there by now.
        slots = _slots(tx, config, dag_id, wanted)[1]
        work = [slot for slot in slots if slot.action != "leave"]
        left = len(slots) - len(work)
        if not work:
            return None, 0, left
        backfill_id = create_backfill(
            tx,
            dag,
            row.version_id,
            slots,
            first=wanted.first,
            last=wanted.last,
            reprocess=wanted.reprocess,
            backwards=wanted.backwards,
            max_active_runs=wanted.max_active_runs,
            conf=wanted.conf,
            actor="cli",
        )
        warnings.extend(hindrances(tx, config, row))
        return _Started(backfill_id, len(work), True), len(work), left

    started, work, left = transact(engine, step)
    ring(config, engine)
    rest = f"; {left} left as they are (--reprocess-behavior {wanted.reprocess})" if left else ""
    if started is None:
        nothing = f"all {left} intervals have runs" if left else "there is no interval in the range"
        click.echo(f"nothing to backfill of {dag_id}: {nothing}")
    elif started.is_new:
        click.echo(f"backfill {started.id} of {dag_id}: {work} runs{rest}")
    else:
        click.echo(f"backfill {started.id} of {dag_id} is under way already: {started.total} runs")
    for warning in warnings:
        click.echo(warning, err=True)
    return started


def _under_way(tx: Tx, dag_id: str) -> Any | None:
    """The backfill of the DAG that has not ended."""
    open_ = [row.id for row in backfills.listed(tx, dag_id) if row.ended_at is None]
    backfills.close(tx, open_)  # its last runs may have been ended by a user
    rows = [row for row in backfills.listed(tx, dag_id) if row.ended_at is None]
    return rows[0] if rows else None


def _attach(there: Any, dag_id: str, wanted: _Wanted, tx: Tx) -> _Started:
    same = (there.from_date, there.to_date, bool(there.is_reversed), there.reprocess)
    if same != (wanted.first, wanted.last, wanted.backwards, wanted.reprocess):
        raise RoostException(
            f"backfill {there.id} of {dag_id}, from {iso(there.from_date)} to "
            f"{iso(there.to_date)}, is still under way; wait for it, or end it with "
            f"`roost dags backfill {dag_id} --cancel`"
        )
    return _Started(there.id, sum(backfills.states(tx, there.id).values()), False)


def _list(dag_id: str, output: str) -> None:
    with reading() as (config, tx):
        find_dag(tx, config, dag_id)
        rows = [
            {
                "backfill_id": row.id,
                "from_date": iso(row.from_date),
                "to_date": iso(row.to_date),
                "state": _state(tx, row),
                "max_active_runs": row.max_active_runs,
                "backwards": bool(row.is_reversed),
                "reprocess": row.reprocess,
                "created_at": iso(row.created_at),
                "ended_at": iso(row.ended_at),
            }
            for row in backfills.listed(tx, dag_id)
        ]
    emit(rows, _LIST_COLUMNS, output)


def _state(tx: Tx, row: Any) -> str:
    counts = backfills.states(tx, row.id)
    said = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    paused = "paused; " if row.is_paused and row.ended_at is None else ""
    return paused + said


def _manage(dag_id: str, what: str) -> None:
    with database() as (config, engine):

        def step(tx: Tx) -> str:
            if what == "cancel":
                user_edits.lock(tx, [])
            find_dag(tx, config, dag_id)
            there = _under_way(tx, dag_id)
            if there is None:
                raise NotFound(
                    f"no backfill of {dag_id} is under way; "
                    f"`roost dags backfill {dag_id} --list` shows those that were"
                )
            name = f"backfill {there.id} of {dag_id}"
            if what == "cancel":
                count = cancel(tx, there.id, actor="cli")
                running = backfills.states(tx, there.id).get("running", 0)
                return f"{name} is cancelled: {count} runs do not start, {running} go on"
            changed = backfills.set_paused(tx, there.id, what == "pause")
            return f"{name} is {what}d{'' if changed else ' already'}"

        said = transact(engine, step)
        ring(config, engine)
    click.echo(said)
