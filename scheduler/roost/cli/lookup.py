"""Finding what a command names: a DAG, a run, a task; or saying why it is not there."""

from __future__ import annotations

from typing import Any

import msgspec

from roost.cli.words import not_found
from roost.dag.model import SerializedDag
from roost.exceptions import NotFound
from roost.models.engine import Tx
from roost.models.queries import listing
from roost.support.config import Config

__all__ = ["find_dag", "find_instance", "find_run", "graph_of_run", "hindrances"]

_BY_WORKERS = ("local", "sequential")


def find_dag(tx: Tx, config: Config, dag_id: str) -> tuple[Any, SerializedDag]:
    """The DAG's row and its current version.

    Raises:
        NotFound: it was never parsed; says what may be the cause.
    """
    row = listing.dag_details(tx, dag_id)
    if row is None:
        raise not_found("DAG", dag_id, listing.dag_ids(tx), _why_unparsed(tx, config))
    return row, msgspec.json.decode(row.data, type=SerializedDag)


def _why_unparsed(tx: Tx, config: Config) -> str:
    errors = listing.import_errors(tx)
    if errors:
        return f"{len(errors)} DAG file(s) cannot be imported, see `roost dags list-import-errors`"
    if not any(job.kind == "scheduler" for job in listing.live_jobs(tx)):
        return "DAG files are parsed by a scheduler and none is running: `roost scheduler`"
    return f"is its file in {config.dags_folder}? A new file takes a few seconds"


def find_run(tx: Tx, config: Config, dag_id: str, run_id: str) -> Any:
    """One run's row.

    Raises:
        NotFound: the DAG has no such run, or does not exist itself.
    """
    row = listing.run_row(tx, dag_id, run_id)
    if row is None:
        find_dag(tx, config, dag_id)
        remedy = f"`roost dags list-runs {dag_id}` shows them"
        raise not_found(f"run of {dag_id}", run_id, listing.run_ids(tx, dag_id), remedy)
    return row


def graph_of_run(tx: Tx, run: Any) -> SerializedDag:
    """The version of the DAG that a run was created with."""
    return msgspec.json.decode(listing.dag_version(tx, run.version_id), type=SerializedDag)


def find_instance(tx: Tx, run: Any, task_id: str, map_index: int) -> Any | None:
    """One task instance's row; None while the scheduler has not taken up the run.

    Raises:
        NotFound: the run's DAG has no such task, or the task no such map index.
    """
    rows = listing.instance_rows(tx, run.id)
    for row in rows:
        if row.task_id == task_id and row.map_index == map_index:
            return row
    mapped = sorted(row.map_index for row in rows if row.task_id == task_id)
    if mapped and mapped != [-1]:
        raise NotFound(
            f"task {task_id!r} has no map index {map_index}; "
            f"give --map-index {mapped[0]} to {mapped[-1]}"
        )
    if mapped:
        raise NotFound(f"task {task_id!r} is not mapped; leave out --map-index")
    known = [task.task_id for task in graph_of_run(tx, run).tasks]
    if task_id in known:
        return None
    remedy = f"`roost tasks list {run.dag_id}` shows them"
    raise not_found(f"task of {run.dag_id}", task_id, known, remedy)


def hindrances(tx: Tx, config: Config, dag: Any) -> list[str]:
    """What keeps a run of this DAG from going on, a line each; ``dag`` is its row."""
    found = []
    if dag.is_paused:
        found.append(
            f"DAG {dag.dag_id} is paused: the run waits for `roost dags unpause {dag.dag_id}`"
        )
    if any(row.fileloc == dag.fileloc for row in listing.import_errors(tx)):
        found.append(f"{dag.fileloc} cannot be imported now; the run uses its last good version")
    kinds = {job.kind for job in listing.live_jobs(tx)}
    needed = ("scheduler", "worker") if config.core.executor in _BY_WORKERS else ("scheduler",)
    missing = [kind for kind in needed if kind not in kinds]
    found += [f"no {kind} is running: the run waits until one is started" for kind in missing]
    return found
