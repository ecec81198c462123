"""Pause a DAG whose runs fail one after the other (H12: max_consecutive_failed_dag_runs)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from roost.models.queries import edits
from roost.scheduler.book import ActiveRun
from roost.scheduler.turn import Turn

__all__ = ["lock_failing", "pause_failing"]

log = logging.getLogger("roost.scheduler")


def lock_failing(turn: Turn, failed: Iterable[ActiveRun]) -> None:
    """Lock the DAGs that :func:`pause_failing` may pause: before the limits of their runs, as a
    parser's store does."""
    dag_ids = {run.dag_id for run in failed if _limit(run)}
    if dag_ids:
        edits.lock_dags(turn.tx, dag_ids)


def pause_failing(turn: Turn, failed: Iterable[ActiveRun]) -> None:
    """Pause the DAGs of which as many runs as they allow have failed in a row.

    Args:
        turn: the turn.
        failed: runs that have just failed; none of their DAGs has a run that ended later.
    """
    for dag_id, limit in {run.dag_id: _limit(run) for run in failed if _limit(run)}.items():
        states = edits.last_run_states(turn.tx, dag_id, limit)
        if len(states) < limit or set(states) != {"failed"}:
            continue
        reason = f"{limit} runs in a row failed (max_consecutive_failed_dag_runs={limit})"
        if edits.pause_dag(turn.tx, dag_id, True, reason=reason, actor=turn.actor):
            log.warning("DAG %s is paused: %s", dag_id, reason)
            _note(turn, dag_id)


def _limit(run: ActiveRun) -> int:
    return run.board.plan.dag.max_consecutive_failed_dag_runs


def _note(turn: Turn, dag_id: str) -> None:
    turn.memory.paused |= {dag_id}
    for run in turn.book.runs.values():
        if run.dag_id == dag_id:
            run.paused = True
