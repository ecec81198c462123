"""Hold tasks back until the same task of the previous run has succeeded (S76, S89)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from roost.models.queries import past
from roost.models.states import RunState, State
from roost.scheduler.book import ActiveRun
from roost.scheduler.plan import Plan
from roost.scheduler.turn import Turn

__all__ = ["hold_back", "holding_back"]

# A skipped previous instance counts as past success (S76).
_PASSED = frozenset({State.SUCCESS, State.SKIPPED, State.REMOVED})


def hold_back(turn: Turn) -> None:
    """Bring up to date which tasks the past holds back.

    Asked for the runs that changed and, where a run of the DAG changed or nothing at all
    happened (the previous run may be another scheduler's), for those that are held.
    """
    if not turn.book.mindful:
        return
    dag_ids = {run.dag_id for run in turn.touched.values()}
    for run in list(turn.book.mindful):
        if run.alive and (run.key in turn.touched or run.dag_id in dag_ids or not turn.touched):
            board = run.board
            before = {i for t in board.plan.past for i in board.undecided(t) if board.held(i)}
            held = _held(turn, run)
            board.set_held(held)
            turn.touch(run)
            # What is released here may complete at once and release the run after this one.
            turn.more |= not before <= set(held)


def _held(turn: Turn, run: ActiveRun) -> list[int]:
    plan = run.board.plan
    tasks = {task: found for task in plan.past if (found := run.board.undecided(task))}
    undecided = [index for found in tasks.values() for index in found]
    if not undecided:
        turn.book.mindful.discard(run)
        return []
    previous = past.previous_run(turn.tx, run.key)
    if previous is None:
        return []
    if previous[1] == RunState.QUEUED:
        return undecided  # it has no task instances yet
    states = past.states(turn.tx, previous[0])
    held = (found for task, found in tasks.items() if holding_back(plan, task, states))
    return [index for found in held for index in found]


def holding_back(
    plan: Plan, task: int, states: Mapping[str, Collection[str]]
) -> tuple[str, str] | None:
    """The first task of the previous run that holds a task of this plan back, with a state of it.

    Args:
        plan: of the run.
        task: index of the task in it.
        states: of the previous run's tasks, by task id, all those of a mapped task's instances;
            one that is absent holds nothing back.
    """
    asked = [plan.tasks[task].task_id]
    if plan.tasks[task].wait_for_downstream:
        asked += [plan.tasks[child].task_id for child in plan.children[task]]
    for task_id in asked:
        unfit = sorted(set(states.get(task_id, ())) - _PASSED)
        if unfit:
            return task_id, unfit[0]
    return None
