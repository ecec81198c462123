"""Runs that a task starts and looks after: what it asks of the database, answered."""

from __future__ import annotations

from typing import Any

import msgspec

from roost.dag.model import SerializedDag
from roost.dag.param import param_scopes
from roost.dag.timetable import infer_manual_interval
from roost.models import state_edits
from roost.models.engine import Tx
from roost.models.queries import listing, runs, xcoms
from roost.models.queries.awaited import Target, runs_of
from roost.models.states import RunState, State
from roost.models.transitions import NewRun, create_run
from roost.support import typedjson
from roost.support.task_requests import DagRecord, OnExists, Reply, RunCreate, RunRecord, RunStates
from roost.support.wire import TaskSpec

__all__ = ["RUN_ID_KEY", "Refused", "create", "see"]

RUN_ID_KEY = "trigger_run_id"
"""XCom of a task that started a run."""
_RESUMED = (State.FAILED, State.UPSTREAM_FAILED)


class Refused(Exception):
    """Nothing may come of a request; the transaction must be rolled back."""


def create(tx: Tx, job_id: int, spec: TaskSpec, request: RunCreate, *, now: int) -> Reply:
    """Start a run as a task asks for it; all of it in the caller's transaction.

    Raises:
        Refused: the task's dispatch is not valid any more, or another run covers the
            same data interval.
    """
    row = listing.dag_details(tx, request.dag_id)
    if row is None or not row.is_active:
        return Reply(text="unknown" if row is None else "inactive")
    if row.is_paused and request.refuse_paused:
        return Reply(text="paused")
    there = listing.run_row(tx, request.dag_id, request.run_id)
    if there is None:
        dag = msgspec.json.decode(row.data, type=SerializedDag)
        params = param_scopes(dag)
        if params and not request.checked:
            return Reply(text="check", params=params)
        _create(tx, spec, request, row.version_id, dag, now)
        did = "created"
    else:
        did = _come_back(tx, spec, request, there)
    if did != "exists":
        value = typedjson.encode(request.run_id).decode()
        told = xcoms.XComValue(spec.ti_id, spec.dispatch_id, RUN_ID_KEY, value, None)
        if not xcoms.push(tx, job_id, [told]):
            raise Refused("this dispatch is not valid any more; nothing was started")
    run = listing.run_row(tx, request.dag_id, request.run_id)
    if run is None:
        return Reply(text="unknown")
    if did != "exists":
        runs.note_starter(tx, run.id, _actor(spec))
    return Reply(text=did, runs=[RunRecord(run.run_id, run.state, run.logical_date)])


def _come_back(tx: Tx, spec: TaskSpec, request: RunCreate, run: Any) -> str:
    """What becomes of a run that exists."""
    starter = runs.starter(tx, run.id)
    if starter == _actor(spec):
        return "created"  # by an earlier dispatch of this try, whose worker was lost
    # An earlier try of this very task instance: this one comes back to its run.
    mine = starter is not None and starter.startswith(f"task:{spec.ti_id}.")
    on_exists = request.on_exists
    if mine and on_exists == "leave":
        on_exists = "restart_failed"
    if _restart(tx, spec, on_exists, run):
        return "restarted"
    return "created" if mine else "exists"


def _create(
    tx: Tx, spec: TaskSpec, request: RunCreate, version_id: int, dag: SerializedDag, now: int
) -> None:
    date = now if request.logical_date is None else request.logical_date
    start, end = request.interval_start, request.interval_end
    if start is None or end is None:
        start, end = infer_manual_interval(dag.timetable, date)
    run = NewRun(
        dag_id=request.dag_id,
        run_id=request.run_id,
        run_type=request.run_type,
        version_id=version_id,
        logical_date=date,
        interval_start=start,
        interval_end=end,
        run_after=now,
        conf=bytes(request.conf).decode(),
    )
    if create_run(tx, run, actor=_actor(spec)) is None:
        raise Refused(
            f"DAG {request.dag_id!r} has another {request.run_type} run of the same data interval"
        )


def _restart(tx: Tx, spec: TaskSpec, on_exists: OnExists, run: Any) -> bool:
    """Have an ended run go on or start anew, where the request says so."""
    failed = run.state == RunState.FAILED
    if on_exists == "restart":
        wanted = failed or run.state == RunState.SUCCESS
    else:
        wanted = failed and on_exists != "leave"
    if not wanted:
        return False
    resumes = on_exists == "resume_failed"
    ids = [
        row.id for row in listing.instance_rows(tx, run.id) if not resumes or row.state in _RESUMED
    ]
    state_edits.clear(tx, ids, actor=_actor(spec))
    return True


def _actor(spec: TaskSpec) -> str:
    """Who starts it: a task instance in one of its tries; neither comes again."""
    return f"task:{spec.ti_id}.{spec.try_number}"


def see(tx: Tx, request: RunStates) -> Reply:
    """How runs of a DAG, and tasks in them, are doing."""
    row = listing.dag_details(tx, request.dag_id)
    if row is None:
        return Reply()
    dag = msgspec.json.decode(row.data, type=SerializedDag)
    task_ids = tuple(_known_tasks(dag, request))
    targets = [
        Target(request.dag_id, logical_date=date, task_ids=task_ids)
        for date in request.logical_dates
    ]
    if request.run_id is not None:
        targets.append(Target(request.dag_id, run_id=request.run_id, task_ids=task_ids))
    found = runs_of(tx, targets).get(request.dag_id, [])
    record = DagRecord(bool(row.is_active), bool(row.is_paused), list(task_ids))
    return Reply(runs=found, dag=record)


def _known_tasks(dag: SerializedDag, request: RunStates) -> list[str]:
    group = request.group_id
    found = []
    for task in dag.tasks:
        inside = str(task.extra.get("task_group", ""))
        grouped = group is not None and (inside == group or inside.startswith(f"{group}."))
        if task.task_id in request.task_ids or grouped:
            found.append(task.task_id)
    return found
