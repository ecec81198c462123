"""End a run before its tasks have: it takes too long (H11), or one failed (fail_fast, H12).

What neither is queued nor runs is skipped at once. What is queued or runs gets the wish to be
skipped: it is taken back, or killed by its worker, and the run ends as failed once that is done.
How the run shall end is noted with it, so another scheduler that takes it over goes on with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from roost.dag.model import SerializedTask
from roost.models.queries import runs, user_edits
from roost.models.state_edits import MARKED
from roost.models.states import FINISHED, Event, State
from roost.scheduler.book import ActiveRun
from roost.scheduler.turn import Turn

__all__ = ["ENDINGS", "fail_fast", "time_out"]

ENDINGS = {
    "timed_out": "timed out: it took longer than dagrun_timeout",
    "fail_fast": "a task failed, and the DAG has fail_fast",
}
"""Why a run failed, by how it was noted to end."""


def time_out(turn: Turn, run_keys: Iterable[int]) -> None:
    """Cut short the runs among these whose time is up (H11)."""
    for run_key in run_keys:
        run = turn.book.runs.get(run_key)
        if run is None or run.timeout_at is None or turn.now < run.timeout_at or run.doubted:
            continue
        if run.wish is None:
            _cut(turn, run, "timed_out", lambda task: False)


def fail_fast(turn: Turn) -> None:
    """Cut short the runs in which a task has failed for good, but for their teardowns (H12)."""
    for run in turn.failing:
        if run.alive and run.wish is None and not run.doubted:
            _cut(turn, run, "fail_fast", lambda task: task.teardown)
    turn.failing.clear()


def _cut(turn: Turn, run: ActiveRun, wish: str, spares: Callable[[SerializedTask], bool]) -> None:
    if not runs.note_ending(turn.tx, run.key, wish):
        turn.doubt(run)  # others have edited it: read it again first
        return
    run.wish = wish
    board = run.board
    idle: list[int] = []
    live: list[int] = []
    for index, state in enumerate(board.states):
        if board.ti_ids[index] < 0 or spares(board.tasks[index]):
            continue  # a mapped task whose instances are on the board, or one that may go on
        if state not in FINISHED:
            (live if run.has_dispatch(index) else idle).append(index)
    deferred = [board.ti_ids[i] for i in idle if board.states[i] == State.DEFERRED]
    user_edits.delete_triggers_of(turn.tx, deferred)
    turn.deferred |= bool(deferred)
    moved = turn.move(
        Event.MARK_SKIPPED,
        [{"id": board.ti_ids[i], "end_date": turn.now, **MARKED} for i in idle],
        sets=("end_date", *MARKED),
        reason=ENDINGS[wish],
    )
    for index in idle:
        if board.ti_ids[index] in moved:
            _skipped(turn, run, index)
        else:
            turn.doubt(run)
    if live:
        user_edits.wish_for(turn.tx, [board.ti_ids[i] for i in live], "skipped")
        turn.wished = turn.more = True  # what no worker has claimed is taken back next
    turn.touch(run)


def _skipped(turn: Turn, run: ActiveRun, index: int) -> None:
    run.waiting.pop(index, None)
    run.resumed.discard(index)
    turn.give_back(run, index)
    run.board.settle(index, State.SKIPPED)
    turn.ended[run.dag_id, run.board.tasks[index].task_id, str(State.SKIPPED)] += 1
