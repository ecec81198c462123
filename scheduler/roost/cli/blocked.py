"""Why a task instance does not run: the first thing in its way, with its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from roost.cli.lookup import find_dag, graph_of_run
from roost.cli.output import iso
from roost.dag.model import SerializedTask
from roost.models.engine import Tx
from roost.models.queries import listing, why
from roost.models.states import FINISHED, State
from roost.support.clock import now_us
from roost.support.config import Config

__all__ = ["reason"]


class _Case(NamedTuple):
    """Everything a reason may look at."""

    tx: Tx
    config: Config
    run: Any
    dag: Any
    task: SerializedTask
    row: Any
    upstream: list[SerializedTask]

    def jobs(self, kind: str) -> list[Any]:
        return [job for job in listing.live_jobs(self.tx) if job.kind == kind]


_Check = Callable[[_Case], str | None]


def reason(tx: Tx, config: Config, run: Any, task_id: str, row: Any | None) -> str:
    """One line about a task instance of a run.

    Args:
        run: the run, as ``listing.run_row`` reads it.
        row: the instance, as ``listing.instance_rows`` reads it; None before it exists.
    """
    graph = graph_of_run(tx, run)
    task = next(task for task in graph.tasks if task.task_id == task_id)
    upstream = [other for other in graph.tasks if task_id in other.downstream]
    case = _Case(tx, config, run, find_dag(tx, config, run.dag_id)[0], task, row, upstream)
    for check in _CHECKS[_stage(case)]:
        found = check(case)
        if found:
            return found
    return "nothing is in its way: the next pass of the scheduler takes it up"


def _stage(case: _Case) -> str:
    if case.row is None or (case.row.state == State.NONE and case.run.state == "queued"):
        return "not_taken_up"
    if case.row.state in FINISHED:
        return "finished"
    return str(case.row.state)


def _finished(case: _Case) -> str | None:
    how = ""
    if case.row.state == State.FAILED:
        end = why.end_of_try(case.tx, case.row.id, case.row.try_number)
        how = f": {end.reason.strip().splitlines()[-1]}" if end and end.reason.strip() else ""
    return f"it is not waiting: {case.row.state} since {iso(case.row.end_date)}{how}"


def _running(case: _Case) -> str | None:
    return (
        f"it is running on {case.row.hostname} since {iso(case.row.start_date)}, "
        f"try {case.row.try_number}"
    )


def _paused(case: _Case) -> str | None:
    if case.dag.is_paused:
        return f"DAG {case.run.dag_id} is paused; `roost dags unpause {case.run.dag_id}`"
    return None


def _no_scheduler(case: _Case) -> str | None:
    if not case.jobs("scheduler"):
        return "no scheduler is running; start `roost scheduler`"
    return None


def _run_limit(case: _Case) -> str | None:
    slots = why.run_slots(case.tx, case.run.dag_id)
    if case.run.state == "queued" and slots and slots.runs >= slots.max_runs:
        return f"its run waits: {slots.runs} of max_active_runs={slots.max_runs} runs are active"
    return None


def _run_over(case: _Case) -> str | None:
    if case.run.state in ("success", "failed"):
        return f"its run is over: {case.run.state} since {iso(case.run.end_date)}"
    return None


def _upstream(case: _Case) -> str | None:
    states: dict[str, str] = {}
    for row in listing.instance_rows(case.tx, case.run.id):
        states[row.task_id] = row.state
    waiting = [
        f"{task.task_id} ({states.get(task.task_id, 'none')})"
        for task in case.upstream
        if states.get(task.task_id, "none") not in FINISHED
    ]
    if not waiting:
        return None
    shown = ", ".join(waiting[:5]) + (", …" if len(waiting) > 5 else "")
    return (
        f"it waits for {len(waiting)} of {len(case.upstream)} upstream tasks: {shown}; "
        f"its rule is {case.task.trigger_rule}"
    )


def _past(case: _Case) -> str | None:
    if not (case.task.depends_on_past or case.task.wait_for_downstream):
        return None
    if case.run.logical_date is None:
        return None
    before = why.previous(case.tx, case.run.dag_id, case.task.task_id, case.run.logical_date)
    if before is None or before.state in (State.SUCCESS, State.SKIPPED):
        return None
    return f"it depends on its past: {before.state} in run {before.run_id}"


def _retry(case: _Case) -> str | None:
    if case.row.retry_at is not None and case.row.retry_at <= now_us() and _no_scheduler(case):
        return _no_scheduler(case)
    return (
        f"try {case.row.try_number} of {case.task.retries + 1} failed; "
        f"the next is due at {iso(case.row.retry_at)}"
    )


def _pool(case: _Case) -> str | None:
    row = why.pool(case.tx, case.row.pool)
    if row is None:
        return f"there is no pool {case.row.pool!r}; `roost pools set {case.row.pool} SLOTS`"  # S41
    need = case.row.pool_slots
    if row.slots >= 0 and need > row.slots:
        return f"it needs {need} slots of pool {case.row.pool}, which has {row.slots} in all"
    if row.slots >= 0 and row.used + need > row.slots:
        ahead = why.counts(case.tx, case.run, case.row).ahead
        return (
            f"pool {case.row.pool} has no room: {row.used} of {row.slots} slots in use, it needs "
            f"{need}; number {ahead + 1} in line"
        )
    return None


def _run_tasks(case: _Case) -> str | None:
    limit = _max_active_tasks(case)
    active = why.counts(case.tx, case.run, case.row).of_run
    if active >= limit:
        return f"{active} of max_active_tasks={limit} tasks of its run are active"
    return None


def _max_active_tasks(case: _Case) -> int:
    return graph_of_run(case.tx, case.run).max_active_tasks


def _parallelism(case: _Case) -> str | None:
    counts = why.counts(case.tx, case.run, case.row)
    limit = case.config.core.parallelism
    if counts.in_flight >= limit:
        return (
            f"{counts.in_flight} of core.parallelism={limit} tasks are queued or running; "
            f"number {counts.ahead + 1} in line"
        )
    return None


def _queued(case: _Case) -> str | None:
    row = why.dispatch(case.tx, case.row.id)
    if row is None:
        return None
    workers = case.jobs("worker")
    takers = [job for job in workers if row.queue in _queues(job, row.queue)]
    since = f"queued since {iso(row.created_at)} in queue {row.queue}"
    if row.claimed_at is not None:
        return f"{since}; worker {row.hostname}:{row.pid} is starting it"
    if not workers:
        return f"{since}; no worker is running: start `roost worker`"
    if not takers:
        return f"{since}; none of {len(workers)} workers takes it: `roost worker -q {row.queue}`"
    return f"{since}, number {row.ahead + 1} in line of {len(takers)} workers"


def _queues(job: Any, default: str) -> list[str]:
    """The queues a worker says it takes; one that says nothing takes them all."""
    detail = msgspec.json.decode(job.detail or "{}")
    return detail.get("queues") or [default]


def _deferred(case: _Case) -> str | None:
    row = why.trigger(case.tx, case.row.id)
    if row is None:
        return None
    since = f"deferred since {iso(row.created_at)} on trigger {row.id} ({row.classpath})"
    if row.fired_at is not None:
        return f"{since}, which fired at {iso(row.fired_at)}: it is about to resume"
    limit = "" if row.timeout_at is None else f", times out at {iso(row.timeout_at)}"
    if row.lane == "timer":
        tail = _no_triggerer(case) or f"due at {iso(row.due_at)}"
    elif row.lane == "external":
        tail = f"waits for the event {row.external_key!r}"
    elif row.hostname is not None:
        tail = f"polled by triggerer {row.hostname}:{row.pid}"
    else:
        tail = _no_triggerer(case) or "no triggerer has taken it yet"
    return f"{since}: {tail}{limit}"


def _no_triggerer(case: _Case) -> str | None:
    return None if case.jobs("triggerer") else "no triggerer is running, start `roost triggerer`"


_CHECKS: dict[str, tuple[_Check, ...]] = {
    "not_taken_up": (_run_over, _no_scheduler, _paused, _run_limit),
    "none": (_run_over, _upstream, _past, _no_scheduler, _paused),
    "scheduled": (
        _run_over, _no_scheduler, _paused, _pool, _run_tasks, _parallelism,
    ),
    "queued": (_queued, _no_scheduler),
    "running": (_running,),
    "deferred": (_deferred, _no_scheduler),
    "up_for_retry": (_retry,),
    "finished": (_finished,),
}  # fmt: skip
