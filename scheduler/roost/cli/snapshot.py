"""Everything that a reason may look at, read in one transaction: the rest of ``why`` is pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from roost.cli.lookup import find_dag
from roost.cli.waiting import Triggerer, triggerer_of
from roost.dag.model import SerializedTask
from roost.models.engine import Tx
from roost.models.queries import line, listing, past, runs, why
from roost.models.states import FINISHED, RunState, State
from roost.scheduler.book import ActiveRun, Book
from roost.scheduler.line import Limits, Reason, classify
from roost.scheduler.steps.past import holding_back
from roost.support.clock import now_us
from roost.support.config import Config

__all__ = ["Past", "Snapshot", "classify_line", "take"]


@dataclass(frozen=True)
class Past:
    """What a task of the previous run holds back: it, its state (empty: not begun), its run."""

    task_id: str
    state: str
    run_id: str


@dataclass(frozen=True)
class Snapshot:
    """One task instance and what is around it.

    Attributes:
        now: the wall clock in microseconds.
        schedulers: how many live.
        triggerers: those that live.
        workers: the queues of each worker that lives; empty: all queues.
        run, dag: their rows.
        task: the task in the run's version of the DAG.
        row: the instance's row; None before it exists.
        run_slots: active runs of the DAG and how many may be, None where it has no row.
        backfill: its id, active runs, how many may be, whether it is paused; None: of no backfill.
        runs_ahead: queued runs of the DAG that start before this one.
        parents: how many upstream tasks it has.
        unfinished: those of them that it waits for, with their states.
        past: what of the previous run holds it back.
        line: what stops it in the line for slots; None where it does not stand there.
        dispatch, trigger, end_of_try: as ``queries.why`` reads them.
    """

    now: int
    schedulers: int
    triggerers: tuple[Triggerer, ...]
    workers: tuple[frozenset[str], ...]
    run: Any
    dag: Any
    task: SerializedTask
    row: Any
    run_slots: tuple[int, int] | None = None
    backfill: tuple[int, int, int, bool] | None = None
    runs_ahead: int = 0
    parents: int = 0
    unfinished: tuple[tuple[str, str], ...] = ()
    past: Past | None = None
    line: tuple[Reason, ...] | None = None
    dispatch: Any = None
    trigger: Any = None
    end_of_try: Any = None

    @property
    def stage(self) -> str:
        """Which checks concern it."""
        if self.row is None or (self.row.state == State.NONE and self.run.state == RunState.QUEUED):
            return "not_taken_up"
        return "finished" if self.row.state in FINISHED else str(self.row.state)


def take(tx: Tx, config: Config, run: Any, task_id: str, row: Any | None) -> Snapshot:
    """Read what concerns one task instance.

    Args:
        run: the run, as ``listing.run_row`` reads it.
        row: the instance, as ``listing.instance_rows`` reads it; None before it exists.
    """
    jobs = listing.live_jobs(tx)
    kept, owner = line.run_of(tx, run.id)
    version = Book().version(runs.version(tx, run.version_id))
    active = ActiveRun(kept, version, runs.instances(tx, run.id), {})
    slots = why.run_slots(tx, run.dag_id)
    state = None if row is None else row.state
    index = None if row is None else active.board.index_of(row.id)
    fields: dict[str, Any] = {}
    if index is not None and state == State.NONE:
        fields = _undecided(tx, active, index)
    elif row is not None and state == State.SCHEDULED:
        stopped = classify_line(tx, owner, _parallelism(config)).get(row.id)
        fields["line"] = None if stopped is None else tuple(stopped)
    elif row is not None:
        fields = {
            "dispatch": why.dispatch(tx, row.id),
            "trigger": why.trigger(tx, row.id),
            "end_of_try": why.end_of_try(tx, row.id, row.try_number),
        }
    counts = () if fields.get("trigger") is None else listing.trigger_counts(tx)
    return Snapshot(
        now=now_us(),
        schedulers=sum(job.kind == "scheduler" for job in jobs),
        triggerers=tuple(triggerer_of(job, counts) for job in jobs if job.kind == "triggerer"),
        workers=tuple(_queues(job) for job in jobs if job.kind == "worker"),
        run=run,
        dag=find_dag(tx, config, run.dag_id)[0],
        task=version.plan.tasks[version.plan.index[task_id]],
        row=row,
        run_slots=None if slots is None else (slots.runs, slots.max_runs),
        backfill=_backfill(tx, kept.backfill_id),
        runs_ahead=why.runs_ahead(tx, run) if run.state == RunState.QUEUED else 0,
        **fields,
    )


def _backfill(tx: Tx, backfill_id: int | None) -> tuple[int, int, int, bool] | None:
    slots = None if backfill_id is None else why.backfill_slots(tx, backfill_id)
    if backfill_id is None or slots is None:
        return None
    return backfill_id, slots.runs, slots.max_runs, bool(slots.is_paused)


def classify_line(tx: Tx, owner: int | None, parallelism: int) -> dict[int, list[Reason]]:
    """What stops each task instance in the line of one scheduler, by id.

    Args:
        owner: the scheduler's job; None: runs that nobody has taken yet.
        parallelism: slots of its executor.
    """
    pools = line.pools(tx)
    holding = {pool.pool: pool.deferred_percent for pool in pools}
    paused = line.paused_dags(tx)
    book = Book()
    waiting = []
    for row in line.waiting_runs(tx, owner):
        version = book.known_version(row.version_id)
        version = version or book.version(runs.version(tx, row.version_id))
        run = ActiveRun(row, version, runs.instances(tx, row.id), holding)
        run.paused = run.dag_id in paused
        waiting.append(run)
    limits = Limits(
        parallelism=parallelism,
        in_flight=line.in_flight(tx, owner),
        pools={pool.pool: (pool.slots, pool.used) for pool in pools},
        tasks=line.task_limits(tx),
    )
    return classify(waiting, limits)


def _undecided(tx: Tx, run: ActiveRun, index: int) -> dict[str, Any]:
    board = run.board
    waits_for = board.blocked_upstreams(index)
    origin = board.origin[index]
    found: dict[str, Any] = {
        "parents": max(board.counts(index).total, len(waits_for)),
        "unfinished": tuple((_name(run, i), board.states[i]) for i in waits_for),
    }
    previous = past.previous_run(tx, run.key) if origin in board.plan.past else None
    if previous is not None:
        if previous[1] == RunState.QUEUED:
            blocked: tuple[str, str] | None = (board.tasks[index].task_id, "")
        else:
            blocked = holding_back(board.plan, origin, past.states(tx, previous[0]))
        if blocked is not None:
            found["past"] = Past(*blocked, why.run_id(tx, previous[0]))
    return found


def _name(run: ActiveRun, index: int) -> str:
    map_index = run.board.map_index(index)
    place = "" if map_index < 0 else f"[{map_index}]"
    return f"{run.board.tasks[index].task_id}{place}"


def _parallelism(config: Config) -> int:
    return 1 if config.core.executor == "sequential" else config.core.parallelism


def _queues(job: Any) -> frozenset[str]:
    return frozenset(msgspec.json.decode(job.detail or "{}").get("queues") or ())
