"""Why a task instance does not run: the first thing in its way, with its numbers. Pure.

For each state there is one list of checks, in the order in which a task instance meets them. The
first that finds something is the reason; ``tasks failed-deps`` shows what all of them find.
"""

from __future__ import annotations

from collections.abc import Callable

from roost.cli.output import iso
from roost.cli.snapshot import Snapshot
from roost.cli.waiting import why_waiting
from roost.scheduler.line import GOES, Reason

__all__ = ["reason", "unmet"]

_Check = Callable[[Snapshot], Reason | None]


def reason(snapshot: Snapshot) -> Reason:
    """Exactly one reason: what a task instance waits for first, or what it does or did."""
    return next((found for check in _CHECKS[snapshot.stage] if (found := check(snapshot))), GOES)


def unmet(snapshot: Snapshot) -> list[Reason]:
    """Everything that stands between a task instance and its start; nothing once it started."""
    if snapshot.stage not in _UNSTARTED:
        return []
    found = [check(snapshot) for check in _CHECKS[snapshot.stage] if check is not _line]
    return [one for one in found if one is not None] + list(snapshot.line or ())


def _finished(case: Snapshot) -> Reason | None:
    row, how = case.row, ""
    if case.end_of_try is not None and case.end_of_try.to_state == row.state:
        lines = case.end_of_try.reason.strip().splitlines()
        how = f": {lines[-1]}" if lines else ""
    text = f"it is not waiting: {row.state} since {iso(row.end_date)}{how}"
    return Reason("finished", text, {"state": row.state, "since": iso(row.end_date)})


def _running(case: Snapshot) -> Reason | None:
    row = case.row
    host = case.dispatch.hostname if case.dispatch is not None else None
    pid = f" (worker {host}:{case.dispatch.pid})" if host is not None else ""
    since = iso(row.start_date)
    text = f"it is running on {row.hostname}{pid} since {since}, try {row.try_number}"
    numbers = {"hostname": row.hostname, "since": since, "try_number": row.try_number}
    return Reason("running", text, numbers)


def _paused(case: Snapshot) -> Reason | None:
    if not case.dag.is_paused:
        return None
    dag_id, because = case.run.dag_id, case.dag.paused_reason
    text = f"DAG {dag_id} is paused{f' ({because})' if because else ''}"
    return Reason("paused", f"{text}; `roost dags unpause {dag_id}`", {"dag_id": dag_id})


def _no_scheduler(case: Snapshot) -> Reason | None:
    if case.schedulers:
        return None
    return Reason("no_scheduler", "no scheduler is running; start `roost scheduler`", {})


def _not_due(case: Snapshot) -> Reason | None:
    due = case.run.run_after
    if case.run.state != "queued" or due <= case.now:
        return None
    return Reason("not_due", f"its run is not due before {iso(due)}", {"run_after": iso(due)})


def _run_limit(case: Snapshot) -> Reason | None:
    if case.run.state == "queued" and case.backfill is not None:
        return _backfill_limit(case.run.dag_id, *case.backfill)
    if case.run.state != "queued" or case.run_slots is None:
        return None
    active, most = case.run_slots
    if active < most:
        return None
    ahead = f"; number {case.runs_ahead + 1} in line" if case.runs_ahead else ""
    text = f"its run waits: {active} of max_active_runs={most} runs are active{ahead}"
    return Reason(
        "max_active_runs", text, {"active": active, "limit": most, "place": case.runs_ahead + 1}
    )


def _backfill_limit(
    dag_id: str, backfill_id: int, active: int, most: int, paused: bool
) -> Reason | None:
    """A backfill's runs have a limit and a pause of their own (H21)."""
    if paused:
        text = f"backfill {backfill_id} is paused; `roost dags backfill {dag_id} --unpause`"
        return Reason("backfill_paused", text, {"backfill": backfill_id})
    if active < most:
        return None
    text = f"its run waits: {active} of {most} runs of backfill {backfill_id} are active"
    return Reason(
        "max_active_runs", text, {"active": active, "limit": most, "backfill": backfill_id}
    )


def _run_over(case: Snapshot) -> Reason | None:
    run = case.run
    if run.state not in ("success", "failed"):
        return None
    text = f"its run is over: {run.state} since {iso(run.end_date)}"
    return Reason("run_over", text, {"state": run.state, "since": iso(run.end_date)})


def _upstream(case: Snapshot) -> Reason | None:
    waits = [f"{task_id} ({state})" for task_id, state in case.unfinished]
    if not waits:
        return None
    shown = ", ".join(waits[:5]) + (", …" if len(waits) > 5 else "")
    text = (
        f"it waits for {len(waits)} of {case.parents} upstream tasks: {shown}; "
        f"its rule is {case.task.trigger_rule}"
    )
    first, state = case.unfinished[0]
    numbers = {
        "waiting": len(waits), "upstream": case.parents, "first": first, "first_state": state,
        "trigger_rule": case.task.trigger_rule,
    }  # fmt: skip
    return Reason("upstream", text, numbers)


def _past(case: Snapshot) -> Reason | None:
    past = case.past
    if past is None:
        return None
    numbers = {"task_id": past.task_id, "state": past.state or None, "run_id": past.run_id}
    if not past.state:
        text = f"it depends on its past: run {past.run_id} has not begun"
    elif past.task_id != case.task.task_id:
        text = f"it depends on its past: {past.task_id} is {past.state} in run {past.run_id}"
    else:
        text = f"it depends on its past: {past.state} in run {past.run_id}"
    return Reason("past", text, numbers)


def _retry(case: Snapshot) -> Reason | None:
    row = case.row
    if row.retry_at is not None and row.retry_at <= case.now and not case.schedulers:
        return _no_scheduler(case)
    most = case.task.retries + 1
    text = f"try {row.try_number} of {most} failed; the next is due at {iso(row.retry_at)}"
    numbers = {"try_number": row.try_number, "tries": most, "retry_at": iso(row.retry_at)}
    return Reason("up_for_retry", text, numbers)


def _line(case: Snapshot) -> Reason | None:
    return case.line[0] if case.line else None


def _queued(case: Snapshot) -> Reason | None:
    row = case.dispatch
    if row is None:
        return None
    since = f"queued since {iso(row.created_at)} in queue {row.queue}"
    numbers: dict[str, object] = {"queue": row.queue, "since": iso(row.created_at)}
    if row.claimed_at is not None:
        text = f"{since}; worker {row.hostname}:{row.pid} is starting it"
        return Reason("starting", text, numbers | {"hostname": row.hostname, "pid": row.pid})
    if not case.workers:
        return Reason("no_worker", f"{since}; no worker is running: start `roost worker`", numbers)
    takers = sum(not queues or row.queue in queues for queues in case.workers)
    if not takers:
        text = (
            f"{since}; none of {len(case.workers)} workers takes it: `roost worker -q {row.queue}`"
        )
        return Reason("no_worker_for_queue", text, numbers | {"workers": len(case.workers)})
    text = f"{since}, number {row.ahead + 1} in line of {takers} workers"
    return Reason("queued", text, numbers | {"place": row.ahead + 1, "workers": takers})


def _deferred(case: Snapshot) -> Reason | None:
    row = case.trigger
    if row is None:
        return None
    return why_waiting(row, case.triggerers, case.schedulers, case.now)


_CHECKS: dict[str, tuple[_Check, ...]] = {
    "not_taken_up": (_run_over, _no_scheduler, _paused, _not_due, _run_limit),
    "none": (_run_over, _upstream, _past, _no_scheduler),
    "scheduled": (_run_over, _no_scheduler, _line),
    "queued": (_queued, _no_scheduler),
    "running": (_running,),
    "deferred": (_deferred, _no_scheduler),
    "up_for_retry": (_retry,),
    "finished": (_finished,),
}
_UNSTARTED = frozenset({"not_taken_up", "none", "scheduled", "up_for_retry"})
