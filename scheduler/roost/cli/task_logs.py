"""``roost tasks logs``: what a task wrote, as it is or as it comes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
from sqlalchemy import Engine

from roost.cli.base import Command
from roost.cli.hiding import hide_stored_secrets
from roost.cli.lookup import find_instance, find_run
from roost.cli.session import database
from roost.cli.task_listing import instance_arguments
from roost.exceptions import NotFound
from roost.models.engine import read
from roost.models.queries import why
from roost.models.states import FINISHED, State
from roost.support import masking
from roost.support.clock import from_us
from roost.support.config import Config
from roost.support.logfile import log_path

__all__ = ["logs"]

_LOOK_S = 0.2
# Bytes at the end of a log in which the reason of a failure is looked for.
_TAIL = 65_536


@click.command(cls=Command)
@instance_arguments
@click.option("--try-number", "--try", type=click.IntRange(1), help="By default the last one.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the task is finished.")
def logs(
    dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None, follow: bool
) -> None:
    """Print the log of a task instance.

    A resume after a deferral appends to the log of its try, and so does the triggerer of this host
    with what the trigger says, marked [trigger ID]. How a try ended comes last, where the task
    could not write it itself: its process was killed, its trigger or a user ended it.
    """
    names = (dag_id, run_id, task_id, map_index)
    filter_ = masking.Filter()
    with database() as (config, engine):
        with read(engine) as tx:
            hide_stored_secrets(tx, config)

        def now() -> Any:
            with read(engine) as tx:
                return find_instance(tx, find_run(tx, config, dag_id, run_id), task_id, map_index)

        row = now()
        while True:
            number = try_number or max(1, row.try_number if row else 1)
            path = Path(log_path(config.log_folder, *names, number))
            if path.exists():
                break
            if not follow or (row and row.state in FINISHED):
                _show_end(engine, row, number, path)
                raise _no_log(config, names, path, row)
            time.sleep(_LOOK_S)
            row = now()
        with path.open("rb") as log:
            # Finished is asked before the last read, so that nothing is left behind.
            while _copy(log, filter_) and follow:
                row = now()
                if row is None or row.state in FINISHED or row.try_number > number:
                    _copy(log, filter_)
                    break
                time.sleep(_LOOK_S)
        click.echo(filter_.rest(), nl=False)
        _show_end(engine, row, number, path)
        _show_elsewhere(engine, row)


def _copy(log: BinaryIO, filter_: masking.Filter) -> bool:
    """Print what there is; bytes, for a task may write anything."""
    while chunk := log.read(65536):
        click.echo(filter_.feed(chunk), nl=False)
    return True


def _show_end(engine: Engine, row: Any, number: int, path: Path) -> None:
    """Print why a try ended, unless the log says so itself."""
    if row is None:
        return
    with read(engine) as tx:
        end = why.end_of_try(tx, row.id, number)
    reason = masking.mask(end.reason.strip()) if end else ""
    if end is None or _last_line(reason) in masking.mask(_tail(path)):
        return
    at = from_us(end.at).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    level = "INFO" if end.to_state in (State.SUCCESS, State.SKIPPED) else "ERROR"
    click.echo(f"[{at}+0000] {level} - {end.to_state}: {reason}")


def _show_elsewhere(engine: Engine, row: Any) -> None:
    """Say where the words of its trigger are, if they may be on another host."""
    if row is None or row.state != State.DEFERRED:
        return
    with read(engine) as tx:
        trigger = why.trigger(tx, row.id)
    if trigger is None or trigger.hostname in (None, socket.gethostname()):
        return
    click.echo(
        f"roost: what trigger {trigger.id} logs is on host {trigger.hostname}, unless "
        "logging.folder is shared",
        err=True,
    )


def _last_line(reason: str) -> str:
    return (reason.strip().splitlines() or [""])[-1]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _no_log(config: Config, names: tuple[str, str, str, int], path: Path, row: Any) -> NotFound:
    dag_id, run_id, task_id, _ = names
    if row is None or row.start_date is None:
        state = row.state if row else "none"
        if state in FINISHED:
            return NotFound(f"task {task_id} is {state} without having run: there is no log")
        why = f"`roost tasks why {dag_id} {run_id} {task_id}` says why"
        return NotFound(f"task {task_id} has not started ({state}): there is no log; {why}")
    if row.hostname and row.hostname != socket.gethostname():
        return NotFound(f"the log is on host {row.hostname}: {path}")
    tries = sorted(name.name for name in path.parent.glob("attempt=*.log"))
    there = f"there is {', '.join(tries)}" if tries else "is logging.folder right?"
    return NotFound(f"there is no log {path}; {there}")
