"""Edits of states by users: clear, mark. Each is called inside one transaction of its caller.

What neither is queued nor runs is moved at once, and its run's scheduler reads the run again.
What is queued or runs has a live dispatch, so only a *wish* is noted on that: the scheduler takes
back what no worker has claimed, a worker kills what it runs, and when the dispatch has ended the
scheduler does as wished. So two copies of a task never live.

Locks are taken in one order: the schedulers' jobs, runs, task instances, pools.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from roost.dag.model import SerializedDag, SerializedTask
from roost.models.engine import Tx
from roost.models.queries import handoffs, inbox, kills, user_edits
from roost.models.queries.user_edits import EditableInstance, EditableRun
from roost.models.slots import share
from roost.models.states import FINISHED, IN_FLIGHT, Event, RunEvent, RunState, State
from roost.models.transitions import move, move_runs
from roost.support.clock import now_us

__all__ = ["CLEARED", "MARK", "MARKED", "Edited", "Mark", "clear", "mark", "mark_run"]

Mark = Literal["success", "failed", "skipped"]
MARK: Final[dict[str, Event]] = {
    "success": Event.MARK_SUCCESS,
    "failed": Event.MARK_FAILED,
    "skipped": Event.MARK_SKIPPED,
}

_NOTHING_AWAITED: Final = {
    "trigger_id": None,
    "next_method": None,
    "next_kwargs": None,
    "retry_at": None,
}
CLEARED: Final[dict[str, Any]] = {
    **_NOTHING_AWAITED,
    "losses": 0,
    "run_us": 0,
    "scheduled_at": None,
    "queued_at": None,
    "start_date": None,
    "end_date": None,
    "hostname": None,
}
"""What a cleared task instance forgets. Its tries count on, and ``first_try`` remembers from
where on its ``retries`` count."""
MARKED: Final[dict[str, Any]] = _NOTHING_AWAITED
"""What a marked one forgets; it also has an ``end_date``."""


class Edited(NamedTuple):
    """What an edit did.

    Attributes:
        moved: task instances that have their new state already.
        wished: those that get it once what runs of them has ended.
        runs: how many runs it concerned.
    """

    moved: int
    wished: int
    runs: int


def clear(tx: Tx, ti_ids: Iterable[int], *, actor: str, keep_version: bool = False) -> Edited:
    """Have task instances run again (S97: whoever calls adds those of sub-DAGs).

    They have all their ``retries`` again, and forget their XComs. A run that had ended is queued
    again; where its DAG's file has changed since, it goes on with the newest version, and tasks
    that this version lacks are ``removed``.

    Args:
        tx: the transaction.
        ti_ids: which; those in state ``none`` stay as they are.
        actor: who, for the log.
        keep_version: let ended runs go on with the version that they had.
    """
    chosen, runs = _locked(tx, ti_ids)
    if not keep_version:
        _renew(tx, [run for run in runs if _ended(run)], actor)
        chosen = user_edits.instances(tx, [row.id for row in chosen])
    kept = [row for row in chosen if row.state not in (State.NONE, State.REMOVED)]
    live, idle = _split(kept)
    user_edits.wish_for(tx, [row.id for row in live], "clear")
    _let_go(tx, idle)
    rows = [{"id": row.id, "first_try": row.try_number, **CLEARED} for row in idle]
    sets = ("first_try", *CLEARED)
    moved = move(tx, Event.CLEAR, rows, actor=actor, sets=sets, reason="cleared by a user")
    inbox.clear_xcoms(tx, [row.id for row in idle])
    touched = {row.dag_run_id for row in kept}
    _open(tx, [run for run in runs if run.id in touched], actor, "some of it was cleared")
    return Edited(len(moved), len(live), len(touched))


def mark(tx: Tx, ti_ids: Iterable[int], state: Mark, *, actor: str) -> Edited:
    """Say how task instances ended, whatever they did or do.

    A run that had ended is queued again, for its state follows from those of its tasks.
    """
    chosen, runs = _locked(tx, ti_ids)
    kept = [row for row in chosen if row.state != state]
    edited = _mark(tx, kept, state, actor)
    touched = {row.dag_run_id for row in kept}
    _open(tx, [run for run in runs if run.id in touched], actor, "some of it was marked")
    return edited


def mark_run(tx: Tx, run_key: int, state: Literal["success", "failed"], *, actor: str) -> Edited:
    """Say how a run ended.

    ``success``: its task instances are marked so too, but for those that are skipped or removed.
    ``failed``: what is queued or runs is ended and marked failed, what has not ended is skipped.
    A run of which something still runs ends when that has ended.
    """
    (run,) = user_edits.lock(tx, [run_key])
    rows = user_edits.instances_of_runs(tx, [run_key])
    if state == "success":
        left = {State.SUCCESS, State.SKIPPED, State.REMOVED}
        edited = _mark(tx, [row for row in rows if row.state not in left], "success", actor)
    else:
        live, idle = _split([row for row in rows if row.state not in FINISHED])
        edited = _sum(_mark(tx, live, "failed", actor), _mark(tx, idle, "skipped", actor))
    if run.state == RunState.RUNNING:
        user_edits.note_wish(tx, run_key, state)
    else:
        event = RunEvent.MARK_SUCCESS if state == "success" else RunEvent.MARK_FAILED
        move_runs(tx, event, [run_key], actor=actor, reason="marked by a user")
    return edited._replace(runs=1)


def _sum(one: Edited, other: Edited) -> Edited:
    return Edited(one.moved + other.moved, one.wished + other.wished, 0)


def _locked(tx: Tx, ti_ids: Iterable[int]) -> tuple[list[EditableInstance], list[EditableRun]]:
    """The task instances as they are once their runs are locked."""
    wanted = list(ti_ids)
    runs = user_edits.lock(tx, {row.dag_run_id for row in user_edits.instances(tx, wanted)})
    return user_edits.instances(tx, wanted), runs


def _ended(run: EditableRun) -> bool:
    return run.state in (RunState.SUCCESS, RunState.FAILED)


def _split(
    rows: Sequence[EditableInstance],
) -> tuple[list[EditableInstance], list[EditableInstance]]:
    """Those with a live dispatch, and the others."""
    live = [row for row in rows if row.state in IN_FLIGHT]
    return live, [row for row in rows if row.state not in IN_FLIGHT]


def _mark(tx: Tx, rows: Sequence[EditableInstance], state: Mark, actor: str) -> Edited:
    live, idle = _split(rows)
    user_edits.wish_for(tx, [row.id for row in live], state)
    _let_go(tx, idle)
    now = now_us()
    moved = move(
        tx,
        MARK[state],
        [{"id": row.id, "end_date": now, **MARKED} for row in idle],
        actor=actor,
        sets=("end_date", *MARKED),
        reason="marked by a user",
    )
    return Edited(len(moved), len(live), len({row.dag_run_id for row in rows}))


def _open(tx: Tx, runs: Sequence[EditableRun], actor: str, reason: str) -> None:
    ended = [run.id for run in runs if _ended(run)]
    move_runs(tx, RunEvent.CLEAR, ended, actor=actor, reason=reason)
    user_edits.open_runs(tx, [run.id for run in runs if not _ended(run)])


def _let_go(tx: Tx, rows: Sequence[EditableInstance]) -> None:
    """Forget what they wait for, and give back the slots that they hold meanwhile (H5)."""
    if deferred := [row.id for row in rows if row.state == State.DEFERRED]:
        kills.kill_triggers_of(tx, deferred)
    held: Counter[str] = Counter()
    for row in rows:
        resumed = row.state == State.SCHEDULED and row.next_method is not None
        if row.state == State.DEFERRED or resumed:
            held[row.pool] += row.pool_slots
    if held:
        pools = handoffs.lock_pools(tx, list(held))
        back = {pool.pool: -share(held[pool.pool], pool.deferred_percent) for pool in pools}
        handoffs.change_pools(tx, back)


def _renew(tx: Tx, runs: Sequence[EditableRun], actor: str) -> None:
    """Let ended runs go on with the newest version of their DAG."""
    newest = user_edits.newest_versions(tx, {run.dag_id for run in runs})
    older = [run for run in runs if newest.get(run.dag_id, (run.version_id,))[0] != run.version_id]
    if not older:
        return
    user_edits.use_versions(tx, {run.id: newest[run.dag_id][0] for run in older})
    tasks = {
        dag_id: {one.task_id: one for one in msgspec.json.decode(data, type=SerializedDag).tasks}
        for dag_id, (_, data) in newest.items()
    }
    dag_of = {run.id: run.dag_id for run in older}
    gone: list[EditableInstance] = []
    kept: dict[tuple[int, str], list[EditableInstance]] = defaultdict(list)
    for row in user_edits.instances_of_runs(tx, dag_of):
        if row.task_id in tasks[dag_of[row.dag_run_id]]:
            kept[row.dag_run_id, row.task_id].append(row)
        else:
            gone.append(row)
    reason = "the DAG has no such task any more"
    move(tx, Event.REMOVE, [{"id": row.id} for row in gone], actor=actor, reason=reason)
    back = [
        found
        for (run_key, task_id), rows in kept.items()
        if (found := _comes_back(tasks[dag_of[run_key]][task_id], rows)) is not None
    ]
    inbox.clear_xcoms(tx, [row.id for row in back])
    again = [{"id": row.id, "first_try": row.try_number, **CLEARED} for row in back]
    sets = ("first_try", *CLEARED)
    move(tx, Event.CLEAR, again, actor=actor, sets=sets, reason="the DAG has its task again")


def _comes_back(task: SerializedTask, rows: Sequence[EditableInstance]) -> EditableInstance | None:
    """What stands for a task again of which all that this version can use had been removed.

    Of a mapped task the first instance: it asks for the length, and so for the others.
    """
    mapped = task.expand is not None or task.mapped_group is not None
    usable = [row for row in rows if (row.map_index >= 0) == mapped]
    if mapped and not usable:
        usable = list(rows)
    if any(row.state != State.REMOVED for row in usable):
        return None
    return min(usable, key=lambda row: row.map_index, default=None)
