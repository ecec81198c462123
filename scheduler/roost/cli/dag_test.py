"""``roost dags test`` and ``roost tasks test``: try a DAG file without daemons or a database."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from roost.cli.base import Command
from roost.cli.inprocess import InProcessRun
from roost.cli.output import paint
from roost.cli.words import conf_of, counted, moment_of, not_found
from roost.dag.loader import LoadedFile, load_dag_file, read_source
from roost.exceptions import DagError
from roost.scheduler.parsing.folder import content, find_files, is_candidate
from roost.support.clock import now_us
from roost.support.config import Config, load_config
from roost.support.event_keys import check_key
from roost.support.event_payload import payload_of
from roost.support.masking import mask
from roost.support.user_settings import for_user_code

__all__ = ["test", "test_task"]

F = TypeVar("F", bound=Callable[..., Any])


def _events_of(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> dict[str, list[str]]:
    """Callback of ``--event``: payloads by key, in the order given."""
    events: dict[str, list[str]] = {}
    for text in texts:
        key, equals, payload = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not KEY=JSON")
        events.setdefault(check_key(key), []).append(payload_of(payload or "null"))
    return events


def _options(command: F) -> F:
    for decorate in (
        click.option("--conf", callback=conf_of, help="JSON object for the run's conf."),
        click.option(
            "--event", "events", multiple=True, callback=_events_of, metavar="KEY=JSON",
            help="An event from outside that a task waits for; may be given several times.",
        ),
        click.option(
            "-f", "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The DAG file; without it the DAGs folder is searched.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command(cls=Command)
@click.argument("dag_id")
@click.argument("logical_date", required=False)
@_options
@click.pass_context
def test(
    ctx: click.Context,
    dag_id: str,
    logical_date: str | None,
    conf: str,
    events: dict[str, list[str]],
    file: Path | None,
) -> None:
    """Run a DAG in this process, without any daemon.

    One task after the other; a deferral is waited for, a retry follows at once, nothing is
    stored. LOGICAL_DATE is ISO 8601, by default now.
    """
    began = time.monotonic()
    run = _prepare(dag_id, logical_date, conf, events, file)
    states = run.run()
    word = "success" if run.succeeded() else "failed"
    took = time.monotonic() - began
    click.echo(f"{dag_id} {paint(word)} after {took:.2f} s: {counted(states.values())}")
    ctx.exit(0 if word == "success" else 1)


@click.command("test", cls=Command)
@click.argument("dag_id")
@click.argument("task_id")
@click.argument("logical_date", required=False)
@click.option(
    "--map-index", type=click.IntRange(0), help="Which instance of a mapped task; default: 0."
)
@_options
@click.pass_context
def test_task(
    ctx: click.Context,
    dag_id: str,
    task_id: str,
    logical_date: str | None,
    map_index: int | None,
    conf: str,
    events: dict[str, list[str]],
    file: Path | None,
) -> None:
    """Run one task here, without any daemon.

    Whatever its upstream did; what it returns is printed and nothing is stored.
    """
    run = _prepare(dag_id, logical_date, conf, events, file)
    if task_id not in run.task_ids:
        raise not_found(f"task of {dag_id}", task_id, run.task_ids, "is it in the file?")
    outcome = run.run_task(task_id, run.place_of(task_id) if map_index is None else map_index)
    result = run.result(task_id)
    if result is not None:
        click.echo(mask(f"returned {result!r}"))
    ctx.exit(1 if outcome.kind == "failed" else 0)


def _say(task_id: str, state: str, remark: str) -> None:
    click.echo(f"{task_id:<24} {paint(state)}{'  ' + remark if remark else ''}")


def _prepare(
    dag_id: str,
    logical_date: str | None,
    conf: str,
    events: dict[str, list[str]],
    file: Path | None,
) -> InProcessRun:
    config = load_config()
    zone = config.core.default_timezone
    at = now_us() if logical_date is None else moment_of(logical_date, zone)
    os.environ.update(for_user_code(config))
    logging.basicConfig(level=config.logging.level, format="%(levelname)s - %(message)s")
    loaded, fileloc = _find(config, dag_id, file)
    return InProcessRun(loaded, fileloc, dag_id, at, conf, _say, events)


def _find(config: Config, dag_id: str, file: Path | None) -> tuple[LoadedFile, str]:
    """Load files until one defines the DAG, the likely ones first.

    Raises:
        NotFound: none does; names the files that cannot be imported.
        DagError: ``file`` cannot be imported.
    """
    folder = str(config.dags_folder)
    known: list[str] = []
    broken: list[str] = []
    paths = [str(file.absolute())] if file else list(_candidates(config, dag_id))
    for path in paths:
        try:
            loaded = load_dag_file(path, read_source(path), folder)
        except (Exception, SystemExit) as error:  # a file must not end the search
            if file:
                raise DagError(f"{path} cannot be imported: {error!r}") from error
            broken.append(f"{path} ({error!r})")
            continue
        if dag_id in loaded.dags:
            return loaded, os.path.relpath(path, folder)
        known += loaded.dags
    remedy = f"is its file in {folder}?" if not file else f"{file} defines {', '.join(known)}"
    if broken:
        remedy = f"these files cannot be imported: {', '.join(broken)}"
    raise not_found("DAG", dag_id, known, remedy)


def _candidates(config: Config, dag_id: str) -> Iterator[str]:
    """DAG files, those first in which the id can be read."""
    folder = config.dags_folder
    found = find_files(str(folder), config.core.dag_ignore_file_syntax)
    paths = [str(folder / path) for path in found]
    if config.core.dag_discovery_safe_mode:
        paths = [path for path in paths if is_candidate(path)]
    naming = {path for path in paths if dag_id.encode() in content(path)}
    yield from sorted(paths, key=lambda path: path not in naming)
