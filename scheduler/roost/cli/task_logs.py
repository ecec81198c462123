"""``roost tasks logs``: what a task wrote, as it is or as it comes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from roost.cli.base import Command
from roost.cli.lookup import find_instance, find_run
from roost.cli.session import database
from roost.cli.task_listing import instance_arguments
from roost.exceptions import NotFound
from roost.models.engine import read
from roost.models.states import FINISHED
from roost.support.config import Config
from roost.worker.tasklog import log_path

__all__ = ["logs"]

_LOOK_S = 0.2


@click.command(cls=Command)
@instance_arguments
@click.option("--try-number", "--try", type=click.IntRange(1), help="By default the last one.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the task is finished.")
def logs(
    dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None, follow: bool
) -> None:
    """Print the log of a task instance.

    A resume after a deferral appends to the log of its try.
    """
    names = (dag_id, run_id, task_id, map_index)
    with database() as (config, engine):

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
                raise _no_log(config, names, path, row)
            time.sleep(_LOOK_S)
            row = now()
        with path.open("rb") as log:
            # Finished is asked before the last read, so that nothing is left behind.
            while _copy(log) and follow:
                row = now()
                if row is None or row.state in FINISHED or row.try_number > number:
                    _copy(log)
                    return
                time.sleep(_LOOK_S)


def _copy(log: BinaryIO) -> bool:
    """Print what there is; bytes, for a task may write anything."""
    while chunk := log.read(65536):
        click.echo(chunk, nl=False)
    return True


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
