"""Which callbacks and mails follow from a move; they are dispatched in its transaction (H23).

The scheduler knows only which callbacks there are. A worker forks a task process for each, which
calls the user's functions (:mod:`roost.dag.callbacks`); what they raise is logged and counted, and
changes nothing.
"""

from __future__ import annotations

import logging

import msgspec

from roost.dag.model import CallbackName, SerializedTask
from roost.models.queries.inbox import EndedDispatch
from roost.models.states import State
from roost.scheduler.book import ActiveRun
from roost.scheduler.turn import Turn
from roost.support.wire import CallbackSpec, Outcome

__all__ = ["run_ended", "settle_callback", "task_ended"]

log = logging.getLogger("roost.scheduler")
_decode = msgspec.json.Decoder(CallbackSpec).decode
_NAMES: dict[State, CallbackName] = {
    State.SUCCESS: "on_success",
    State.FAILED: "on_failure",
    State.UP_FOR_RETRY: "on_retry",
    State.SKIPPED: "on_skipped",
}


def task_ended(
    turn: Turn,
    run: ActiveRun,
    index: int,
    state: State,
    *,
    started_at: int | None = None,
    ended_at: int | None = None,
    error: str | None = None,
) -> None:
    """A try of a task instance ended by itself, by its process, its trigger or its time limit.

    Args:
        turn: the turn.
        run: the run of the task instance.
        index: its place on the run's board.
        state: what it came to. ``skipped`` only where the task skipped itself.
        started_at: when the part of the try that ended now began, in microseconds.
        ended_at: when it ended.
        error: why it failed: one line or a traceback.
    """
    task = run.board.tasks[index]
    if not task.callbacks and not task.email:
        return
    spec = CallbackSpec(
        kind="task",
        name=_NAMES[state],
        ti_id=run.board.ti_ids[index],
        task_id=task.task_id,
        map_index=run.board.map_index(index),
        try_number=run.tries[index],
        state=state,
        reason=_last_line(error),
        error=error,
        start_date=started_at,
        end_date=ended_at,
    )
    if spec.name in task.callbacks:
        turn.call_back(run.key, spec, task.queue)
    if task.email and _wants_mail(task, state):
        turn.call_back(run.key, msgspec.structs.replace(spec, name="email"), task.queue)


def _wants_mail(task: SerializedTask, state: State) -> bool:
    if state == State.FAILED:
        return task.email_on_failure
    return state == State.UP_FOR_RETRY and task.email_on_retry


def _last_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def run_ended(turn: Turn, run: ActiveRun, *, succeeded: bool, stuck: bool) -> None:
    """A run ended by itself, or by its DAG's limits. What a user says of it calls nobody back.

    ``context["reason"]`` is ``success``, ``task_failure``, ``all_tasks_deadlocked`` or
    ``timed_out``.
    """
    name = "on_success" if succeeded else "on_failure"
    if name not in run.board.plan.dag.callbacks or run.wish in ("success", "failed"):
        return
    if stuck:
        reason = "all_tasks_deadlocked"
    elif run.wish == "timed_out":
        reason = "timed_out"
    else:
        reason = "success" if succeeded else "task_failure"
    shown = _shown(run, succeeded)
    spec = CallbackSpec(
        kind="dag",
        name=name,
        ti_id=None if shown is None else run.board.ti_ids[shown],
        task_id=None if shown is None else run.board.tasks[shown].task_id,
        map_index=-1 if shown is None else run.board.map_index(shown),
        try_number=0 if shown is None else run.tries[shown],
        state="success" if succeeded else "failed",
        reason=reason,
        start_date=run.started_at,
        end_date=turn.now,
    )
    turn.call_back(run.key, spec)


def _shown(run: ActiveRun, succeeded: bool) -> int | None:
    """The task instance that ``ti`` shows: the first that failed, else the last of all."""
    states = run.board.states
    if not succeeded:
        for index, state in enumerate(states):
            if state == State.FAILED:
                return index
    return len(states) - 1 if states else None


def settle_callback(turn: Turn, ended: EndedDispatch, outcome: Outcome, max_losses: int) -> None:
    """A callback's process ended. What was lost with its worker is handed over anew (S11)."""
    spec = _decode(ended.callback or "{}")
    if outcome.kind == "lost" and ended.try_number <= max_losses:
        turn.call_back(ended.dag_run_id, spec, ended.queue, ended.try_number)
    elif outcome.kind != "success":
        of = f" of task {spec.task_id}" if spec.kind == "task" else ""
        log.warning(
            "%s callback %s%s, run %d: %s",
            spec.kind,
            spec.name,
            of,
            ended.dag_run_id,
            _last_line(outcome.error) or outcome.kind,
        )
