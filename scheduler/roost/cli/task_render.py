"""``roost tasks render``: what a task's templates yield in a run, without running it (S64)."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from roost.cli.base import Command
from roost.cli.hiding import hide_stored_secrets
from roost.cli.lookup import find_dag
from roost.cli.output import emit, output_option
from roost.cli.session import reading
from roost.cli.words import moment_of, not_found
from roost.dag.loader import load_dag_file
from roost.dag.model import SerializedDag
from roost.dag.run import render_task
from roost.dag.timetable import infer_manual_interval
from roost.exceptions import DagError, RoostException
from roost.models.engine import Tx
from roost.models.queries import dispatches, listing
from roost.support import masking
from roost.support.clock import now_us
from roost.support.config import Config
from roost.support.crypto import keyring_of
from roost.support.event_tokens import url_of
from roost.support.task_requests import CallbackUrl, Reply, Request
from roost.support.user_settings import for_user_code
from roost.support.wire import TaskSpec
from roost.worker.answers import Answers, writes
from roost.worker.attendant import Asked

__all__ = ["render"]


@click.command(cls=Command)
@click.argument("dag_id")
@click.argument("run")
@click.argument("task_id")
@click.option("--map-index", type=int, default=-1, help="Which instance of a mapped task.")
@output_option
def render(dag_id: str, run: str, task_id: str, map_index: int, output: str) -> None:
    """Print a task's template fields, rendered for a run.

    RUN is a run id, or a logical date (ISO 8601) for a run that does not exist. The DAG file is
    loaded here, in the version of the run; the task is not run, and nothing is stored. Secrets are
    hidden as in logs.
    """
    with reading() as (config, tx):
        hide_stored_secrets(tx, config)
        spec, code = _spec(tx, config, dag_id, run, task_id, map_index)
        os.environ.update(for_user_code(config))
        folder = str(config.dags_folder)
        try:
            loaded = load_dag_file(os.path.join(folder, code.fileloc), code.source, folder)
        except (Exception, SystemExit) as error:  # a file may raise anything
            raise DagError(f"{code.fileloc} cannot be imported: {error!r}") from error
        if dag_id not in loaded.dags or not loaded.dags[dag_id].has_task(task_id):
            raise DagError(f"{code.fileloc} does not define {dag_id}.{task_id} when it is loaded")
        task = loaded.dags[dag_id].get_task(task_id)
        fields = render_task(task, spec, _Reading(tx, config, spec))
    rows = [{"field": name, "value": _shown(name, value)} for name, value in fields.items()]
    emit(rows, ("field", "value"), output)


def _shown(name: str, value: object) -> str:
    hidden = masking.mask_value(value, name)
    return masking.mask(hidden if isinstance(hidden, str) else repr(hidden))


class _Reading:
    """Answers what templates ask, as a worker would, but changes nothing."""

    def __init__(self, tx: Tx, config: Config, spec: TaskSpec) -> None:
        self._tx = tx
        self._spec = spec
        self._answers = Answers(keyring_of(config), config.smtp, config.core.max_xcom_size)

    def call(self, request: Request) -> Reply:
        """The answer to one request."""
        asked = Asked(self._spec, request)
        if isinstance(request, CallbackUrl):
            return Reply(text=url_of("https://…", masking.MASK))  # a real one could be used
        if writes(asked):
            return Reply(error="nothing is stored while templates are only shown")
        return self._answers.reply(self._tx, 0, asked)


def _spec(
    tx: Tx, config: Config, dag_id: str, run_id: str, task_id: str, map_index: int
) -> tuple[TaskSpec, dispatches.DagCode]:
    """A dispatch of the task as the run would make it, and the code of the run's version.

    Raises:
        NotFound: there is no such DAG, run or task.
    """
    row, _dag = find_dag(tx, config, dag_id)
    run = listing.run_row(tx, dag_id, run_id)
    (code,) = dispatches.dag_codes(tx, [run.version_id if run else row.version_id])
    dag = msgspec.json.decode(code.data, type=SerializedDag)
    tasks = {task.task_id: task for task in dag.tasks}
    if task_id not in tasks:
        remedy = f"`roost tasks list {dag_id}` shows them"
        raise not_found(f"task of {dag_id}", task_id, tasks, remedy)
    task, now = tasks[task_id], now_us()
    if run is None:
        dates = _pretended(tx, config, dag, run_id)
    else:
        found = [
            one
            for one in listing.instance_rows(tx, run.id)
            if (one.task_id, one.map_index) == (task_id, map_index)
        ]
        dates = {
            "ti_id": found[0].id if found else 0,
            "try_number": max(1, found[0].try_number) if found else 1,
            "run_type": run.run_type,
            "logical_date": run.logical_date,
            "interval_start": run.interval_start,
            "interval_end": run.interval_end,
            "run_queued_at": run.queued_at,
            "run_start_date": run.start_date,
            "conf": msgspec.Raw(listing.run_conf(tx, run.id).encode()),
        }
    spec = TaskSpec(
        dispatch_id=0,
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        max_tries=1 + task.retries,
        operator=task.operator,
        code_hash=code.code_hash,
        fileloc=code.fileloc,
        start_date=now,
        pool=task.pool,
        pool_slots=task.pool_slots,
        queue=task.queue,
        priority_weight=task.priority_weight,
        **dates,
    )
    return spec, code


def _pretended(tx: Tx, config: Config, dag: SerializedDag, run_id: str) -> dict[str, Any]:
    """A manual run at the logical date that ``run_id`` is; an error that knows the runs if not."""
    try:
        date = moment_of(run_id, config.core.default_timezone)
    except (click.UsageError, RoostException):
        remedy = f"`roost dags list-runs {dag.dag_id}` shows them; a date will do as well"
        known = listing.run_ids(tx, dag.dag_id)
        raise not_found(f"run of {dag.dag_id}", run_id, known, remedy) from None
    interval, now = infer_manual_interval(dag.timetable, date), now_us()
    return {
        "ti_id": 0,
        "try_number": 1,
        "run_type": "manual",
        "logical_date": date,
        "interval_start": interval.start,
        "interval_end": interval.end,
        "run_queued_at": now,
        "run_start_date": now,
        "conf": msgspec.Raw(b"{}"),
    }
