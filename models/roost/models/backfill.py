"""Backfills: which runs the intervals between two dates get, and the rows that say so (H21).

The runs are ordinary runs in state queued; the scheduler starts at most ``max_active_runs`` of a
backfill at a time, beside those that the DAG's own limit admits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from roost.dag.model import SerializedDag
from roost.dag.timetable import DagRunInfo, next_run
from roost.exceptions import RoostException
from roost.models import state_edits
from roost.models.engine import Tx
from roost.models.queries import backfills, user_edits
from roost.models.states import RunEvent
from roost.models.transitions import NewRun, create_run, move_runs
from roost.support.clock import from_us

__all__ = ["Reprocess", "Slot", "cancel", "create_backfill", "intervals", "plan_backfill"]

Reprocess = Literal["none", "failed", "completed"]
_MOST = 100_000
_WITHOUT_INTERVALS = frozenset({"null", "once", "continuous"})
_REDONE: dict[Reprocess, frozenset[str]] = {
    "none": frozenset(),
    "failed": frozenset({"failed"}),
    "completed": frozenset({"failed", "success"}),
}


class Slot(NamedTuple):
    """One interval of a backfill.

    Attributes:
        info: the interval.
        run_key: the run that it has already, or None.
        run_id: of that run, or of the one to create.
        state: of the run that it has already.
        action: ``create`` a run, ``clear`` the one it has, or ``leave`` that alone.
    """

    info: DagRunInfo
    run_key: int | None
    run_id: str
    state: str | None
    action: Literal["create", "clear", "leave"]


def intervals(dag: SerializedDag, first: int, last: int, now: int) -> list[DagRunInfo]:
    """The intervals of a DAG's schedule whose logical date is in ``[first, last]``.

    Raises:
        RoostException: its schedule has no intervals, or one of them is not over, or there are
            more than a hundred thousand.
    """
    if dag.timetable.kind in _WITHOUT_INTERVALS:
        raise RoostException(
            f"DAG {dag.dag_id!r} has schedule {dag.timetable.summary or None}: there are no "
            "intervals to backfill; `roost dags trigger` starts single runs"
        )
    if dag.timetable.kind == "custom":
        raise RoostException(
            f"DAG {dag.dag_id!r} has a timetable of its own, {dag.timetable.summary}, that says "
            "only what comes next: it cannot be backfilled; `roost dags trigger` starts single runs"
        )
    found: list[DagRunInfo] = []
    end: int | None = None
    while True:
        info = next_run(dag.timetable, end, first, last, True, now)
        if info is None:
            return found
        if info.run_after > now:
            raise RoostException(
                f"the interval from {from_us(info.interval_start).isoformat()} is not over before "
                f"{from_us(info.interval_end).isoformat()}; give an earlier -e"
            )
        end = info.interval_end
        if info.logical_date < first:
            continue  # of a trigger timetable: what it covers begins before its moment
        found.append(info)
        if len(found) > _MOST:
            raise RoostException(f"these are more than {_MOST:,} intervals; give a shorter range")


def plan_backfill(
    tx: Tx,
    dag: SerializedDag,
    infos: Sequence[DagRunInfo],
    reprocess: Reprocess,
    *,
    backwards: bool,
) -> list[Slot]:
    """What a backfill does with each interval, in its order.

    Raises:
        RoostException: backwards, with tasks that depend on their past.
    """
    past = [t.task_id for t in dag.tasks if t.depends_on_past or t.wait_for_downstream]
    if backwards and past:
        raise RoostException(
            f"{', '.join(past[:3])} of DAG {dag.dag_id!r} depend on the run before: it cannot be "
            "backfilled backwards; leave out --run-backwards"
        )
    if not infos:
        return []
    starts = [info.interval_start for info in infos]
    there = backfills.interval_runs(tx, dag.dag_id, min(starts), max(starts))
    slots = []
    for info in infos:
        run = there.get(info.interval_start)
        if run is None:
            name = f"backfill__{from_us(info.logical_date).isoformat()}"
            slots.append(Slot(info, None, name, None, "create"))
        else:
            again = run.state in _REDONE[reprocess]
            slots.append(Slot(info, run.id, run.run_id, run.state, "clear" if again else "leave"))
    return slots[::-1] if backwards else slots


def create_backfill(
    tx: Tx,
    dag: SerializedDag,
    version_id: int,
    slots: Sequence[Slot],
    *,
    first: int,
    last: int,
    reprocess: Reprocess,
    backwards: bool,
    max_active_runs: int,
    conf: str,
    actor: str,
) -> int:
    """Write a backfill and its runs; gives its id.

    The caller has made sure that the DAG has no other one under way.
    """
    backfill_id = backfills.create(
        tx,
        dag_id=dag.dag_id,
        from_date=first,
        to_date=last,
        max_active_runs=max_active_runs,
        is_reversed=backwards,
        reprocess=reprocess,
        conf=conf,
    )
    for slot in slots:
        if slot.action == "create":
            info = slot.info
            run = NewRun(
                dag_id=dag.dag_id,
                run_id=slot.run_id,
                run_type="backfill",
                version_id=version_id,
                logical_date=info.logical_date,
                interval_start=info.interval_start,
                interval_end=info.interval_end,
                run_after=info.run_after,
                conf=conf,
                backfill_id=backfill_id,
            )
            create_run(tx, run, actor=actor)
    again = [slot.run_key for slot in slots if slot.action == "clear" and slot.run_key is not None]
    if again:
        backfills.take_over(tx, backfill_id, again, None if conf == "{}" else conf)
        ids = [row.id for row in user_edits.instances_of_runs(tx, again)]
        state_edits.clear(tx, ids, actor=actor)
        # Those that ended before any of their tasks began have nothing to clear.
        move_runs(tx, RunEvent.CLEAR, again, actor=actor, reason="backfilled again")
    return backfill_id


def cancel(tx: Tx, backfill_id: int, *, actor: str) -> int:
    """End a backfill: what has not started is marked failed, what runs goes on; gives how many
    did not start."""
    user_edits.lock(tx, [])
    queued = backfills.queued_runs(tx, backfill_id)
    for run_key in queued:
        state_edits.mark_run(tx, run_key, "failed", actor=actor)
    backfills.end(tx, backfill_id)
    return len(queued)
