"""Judges a database by the invariants of the metadata, whatever happened before.

Everything is read in one snapshot, so the checker may be asked at any moment, also while daemons
are at work. It reads the event log, the tables, and the DAG versions that the runs executed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, text

from roost.dag.model import SerializedDag, SerializedTask
from roost.dag.rules import Counts, Verdict, evaluate
from roost.models.states import FINISHED, IN_FLIGHT, MOVES, RUN_MOVES, Event, RunEvent, State
from roost.scheduler.steps.cutting import ENDINGS

__all__ = ["violations"]


_BY_USER = frozenset(
    {Event.CLEAR, Event.MARK_SUCCESS, Event.MARK_FAILED, Event.MARK_SKIPPED, Event.REMOVE}
)
_OTHERWISE = frozenset({"marked by a user", *ENDINGS.values()})
_DECISIONS = frozenset({Event.SCHEDULE, Event.SKIP, Event.UPSTREAM_FAIL})


@dataclass
class Snapshot:
    """What the tables hold at one moment."""

    tasks: dict[int, Any]
    runs: dict[int, Any]
    log: list[Any]
    dispatches: list[Any]
    triggers: list[Any]
    events: list[Any]
    pools: list[Any]
    usage: list[Any]
    backfills: list[Any]
    task_usage: list[Any]
    dags: dict[int, SerializedDag]
    by_task: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    by_run: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    instances: dict[int, dict[str, list[Any]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def name(self, ti_id: int) -> str:
        """A task instance as a human would say it."""
        row = self.tasks.get(ti_id)
        if row is None:
            return f"ti {ti_id}"
        place = "" if row.map_index < 0 else f"[{row.map_index}]"
        return f"{row.task_id}{place} of run {row.dag_run_id}"


def violations(engine: Engine, *, slots: int | None = None) -> list[str]:
    """Every broken promise, one line each; empty when all is well.

    Args:
        engine: the metadata database.
        slots: the most task instances that all schedulers together may have in flight.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection = connection.execution_options(roost_reading=True)
        with connection.begin():
            found = _read(connection)
    broken = [
        line
        for rule in (_history, _dispatches, _triggers, _pools, _usage, _runs, _decisions, _mapped)
        for line in rule(found)
    ]
    in_flight = sum(row.state in IN_FLIGHT for row in found.tasks.values())
    if slots is not None and in_flight > slots:
        broken.append(f"S10: {in_flight} task instances in flight with {slots} executor slots")
    return broken


def _read(db: Connection) -> Snapshot:
    def rows(sql: str) -> list[Any]:
        return list(db.execute(text(sql)).all())

    snapshot = Snapshot(
        tasks={row.id: row for row in rows("SELECT * FROM task_instance ORDER BY id")},
        runs={row.id: row for row in rows("SELECT * FROM dag_run ORDER BY id")},
        log=rows("SELECT * FROM event_log ORDER BY id"),
        dispatches=rows("SELECT * FROM dispatch ORDER BY id"),
        triggers=rows("SELECT * FROM trigger ORDER BY id"),
        events=rows("SELECT * FROM trigger_event ORDER BY id"),
        pools=rows("SELECT * FROM pool ORDER BY pool"),
        usage=rows("SELECT * FROM dag_usage ORDER BY dag_id"),
        backfills=rows("SELECT * FROM backfill ORDER BY id"),
        task_usage=rows("SELECT * FROM task_usage ORDER BY dag_id, task_id"),
        dags={
            row.id: msgspec.json.decode(row.data, type=SerializedDag)
            for row in rows("SELECT id, data FROM dag_version")
        },
    )
    for row in snapshot.tasks.values():
        snapshot.instances[row.dag_run_id][row.task_id].append(row)
    for row in snapshot.log:
        if row.ti_id is not None:
            snapshot.by_task[row.ti_id].append(row)
        else:
            snapshot.by_run[row.dag_run_id].append(row)
    return snapshot


def _history(found: Snapshot) -> Iterator[str]:
    """S2, S4, S5: one log row a move, gap-free, each an allowed one, dispatch ids that grow."""
    for ti_id, task in found.tasks.items():
        log = sorted(found.by_task[ti_id], key=lambda row: int(row.ti_version))
        name = found.name(ti_id)
        if [row.ti_version for row in log] != list(range(1, task.version + 1)):
            yield f"S4: {name} has version {task.version}, log {[r.ti_version for r in log]}"
            continue
        for row in log:
            origins, target = MOVES[Event(row.event)]
            if row.from_state not in origins or row.to_state != target:
                yield f"S4: {name} moved {row.from_state} -> {row.to_state} by {row.event}"
        states = [State.NONE, *(row.to_state for row in log)]
        if [row.from_state for row in log] != states[:-1] or states[-1] != task.state:
            yield f"S4: {name} is {task.state}, its log says {states}"
        left = [row for row in log if row.from_state in FINISHED and row.event not in _BY_USER]
        if left:
            yield f"S5: {name} left a final state by itself: {states}"
        handed = [row.dispatch_id for row in log if row.event == Event.ENQUEUE]
        if any(a >= b for a, b in pairwise(handed)):
            yield f"S2: {name} was handed over with {handed}"
        ids = [row.dispatch_id for row in log if row.dispatch_id is not None]
        if any(a > b for a, b in pairwise(ids)):
            yield f"S2: {name} was moved for an older dispatch: {ids}"
        yield from _tries(found, task, log)


def _tries(found: Snapshot, task: Any, log: list[Any]) -> Iterator[str]:
    """S11: retries allow every try, and a lost dispatch or a deferral takes none."""
    dag = found.dags[found.runs[task.dag_run_id].version_id]
    known = {one.task_id: one for one in dag.tasks}.get(task.task_id)
    schedules = sum(row.event == Event.SCHEDULE for row in log)
    anew = sum(row.event == Event.SCHEDULE for row in _since_clear(log))
    retries = anew if known is None else known.retries
    if task.try_number != schedules or anew > 1 + retries or task.first_try != schedules - anew:
        yield (
            f"S11: {found.name(task.id)} has try {task.try_number} (first {task.first_try}), was "
            f"scheduled {schedules} times, {anew} since a clear, with {retries} retries"
        )
    resumes = Counter(row.trigger_id for row in log if row.event == Event.RESUME)
    if any(count > 1 for count in resumes.values()) or None in resumes:
        yield f"S3: {found.name(task.id)} resumed {dict(resumes)} times by trigger"


def _since_clear(log: list[Any]) -> list[Any]:
    """What happened to a task instance since it was cleared last; all of it if it never was."""
    cleared = [at for at, row in enumerate(log) if row.event == Event.CLEAR]
    return log[cleared[-1] + 1 :] if cleared else log


def _dispatches(found: Snapshot) -> Iterator[str]:
    """S1: in flight means exactly one unsettled dispatch, which is the current one."""
    open_of: dict[int, list[int]] = defaultdict(list)
    of_tasks = [row for row in found.dispatches if row.ti_id is not None]
    for row in of_tasks:
        if not row.settled:
            open_of[row.ti_id].append(row.id)
    for ti_id, task in found.tasks.items():
        expected = [task.dispatch_id] if task.state in IN_FLIGHT else []
        if open_of[ti_id] != expected:
            yield f"S1: {found.name(ti_id)} is {task.state}, open dispatches {open_of[ti_id]}"
    handed = {row.dispatch_id for row in found.log if row.event == Event.ENQUEUE}
    if handed != {row.id for row in of_tasks}:
        yield "S1: the log's hand-offs are not those of the dispatch table"
    calls = Counter(
        (row.dag_run_id, row.callback)
        for row in found.dispatches
        if row.callback is not None and row.ended_at is None
    )
    yield from (f"H23: {call} waits or runs {n} times" for call, n in calls.items() if n > 1)


def _triggers(found: Snapshot) -> Iterator[str]:
    """S3, S6: deferred means exactly one trigger; an event belongs to a trigger."""
    by_task = {row.ti_id: row.id for row in found.triggers if row.watcher_hash is None}
    waiting = {i: t.trigger_id for i, t in found.tasks.items() if t.state == State.DEFERRED}
    if by_task != waiting:
        yield f"S6: triggers {by_task}, deferred task instances {waiting}"
    if {row.trigger_id for row in found.events} - {row.id for row in found.triggers}:
        yield "S3: an event without its trigger"


def _held(task: Any, deferred_percent: int) -> int:
    """Hundredths of its pool that a task instance holds."""
    if task.state in IN_FLIGHT:
        return int(task.pool_slots) * 100
    resumed = task.state == State.SCHEDULED and task.next_method is not None
    waits = task.state == State.DEFERRED or resumed
    return int(task.pool_slots) * deferred_percent if waits else 0


def _pools(found: Snapshot) -> Iterator[str]:
    """S8: what a pool counts is what its task instances hold, and within its slots."""
    for pool in found.pools:
        held = sum(
            _held(task, pool.deferred_percent)
            for task in found.tasks.values()
            if task.pool == pool.pool
        )
        if held != pool.used:
            yield f"S8: pool {pool.pool} counts {pool.used}, its task instances hold {held}"
        if 0 <= pool.slots * 100 < held and not pool.shrinking:
            yield f"S8: pool {pool.pool} of {pool.slots} slots has {held} hundredths in use"


def _usage(found: Snapshot) -> Iterator[str]:
    """S9, S10: active runs of a DAG and task instances in flight of a run."""
    running = [run for run in found.runs.values() if run.state == "running"]
    active = Counter(run.dag_id for run in running if run.backfill_id is None)
    filling = Counter(run.backfill_id for run in running if run.backfill_id is not None)
    for one in found.backfills:
        if filling[one.id] > one.max_active_runs:
            yield f"H21: backfill {one.id} has {filling[one.id]} runs of {one.max_active_runs}"
    for row in found.usage:
        if active[row.dag_id] != row.runs:
            yield f"S9: {row.dag_id} counts {row.runs} runs, {active[row.dag_id]} are running"
        if row.runs > row.max_runs and not row.shrinking:
            yield f"S9: {row.dag_id} has {row.runs} runs of {row.max_runs}"
    in_flight = Counter(t.dag_run_id for t in found.tasks.values() if t.state in IN_FLIGHT)
    for run_key, count in in_flight.items():
        limit = found.dags[found.runs[run_key].version_id].max_active_tasks
        if count > limit:
            yield f"S10: run {run_key} has {count} task instances in flight of {limit}"
    yield from _task_limits(found)


def _task_limits(found: Snapshot) -> Iterator[str]:
    """H4: instances in flight of a task with a limit of its own, over all runs and in one."""
    over_all: Counter[tuple[str, str]] = Counter()
    in_run: Counter[tuple[int, str]] = Counter()
    for row in found.tasks.values():
        run = found.runs[row.dag_run_id]
        task = {one.task_id: one for one in found.dags[run.version_id].tasks}.get(row.task_id)
        if task is None or row.state not in IN_FLIGHT or run.end_date is not None:
            continue
        over_all[run.dag_id, row.task_id] += task.max_active_tis_per_dag is not None
        in_run[run.id, row.task_id] += 1
        limit = task.max_active_tis_per_dagrun
        if limit is not None and in_run[run.id, row.task_id] > limit:
            yield f"H4: {found.name(row.id)} is one more than {limit} in flight in its run"
    for row in found.task_usage:
        count = over_all.pop((row.dag_id, row.task_id), 0)
        if count != row.used:
            yield f"H4: {row.dag_id}.{row.task_id} counts {row.used} in flight, it is {count}"
        if count > row.max_used and not row.shrinking:
            yield f"H4: {row.dag_id}.{row.task_id} has {count} in flight of {row.max_used}"
    yield from (f"H4: {key} has {n} in flight and no row" for key, n in over_all.items() if n)


def _may_follow(log: list[Any]) -> bool:
    """Whether each move of a run began where the one before it ended, as a queued run began."""
    state = "queued"
    for row in log:
        if row.event == "create":
            continue
        origins, target = RUN_MOVES[RunEvent(row.event)]
        if row.from_state != state or state not in origins or row.to_state != target:
            return False
        state = target
    return True


def _runs(found: Snapshot) -> Iterator[str]:
    """S12, S17: an interval has one scheduled run; a run ends as its leaves do."""
    intervals = Counter(
        (run.dag_id, run.interval_start)
        for run in found.runs.values()
        if run.run_type in ("scheduled", "backfill")
    )
    yield from (f"S12: {key} has {n} scheduled runs" for key, n in intervals.items() if n > 1)
    for key, run in found.runs.items():
        log = found.by_run[key]
        steps = [row.event for row in log if row.event != "create"]
        if not _may_follow(log) or (steps and RUN_MOVES[steps[-1]][1] != run.state):
            yield f"S4: run {key} is {run.state}, its log says {steps}"
        if run.state in ("queued", "running"):
            continue
        if log[-1].reason in _OTHERWISE:
            continue  # so it says, whatever its leaves do
        mine = found.instances[key]
        left = [t.task_id for rows in mine.values() for t in rows if t.state not in FINISHED]
        stuck = any(row.reason and "deadlock" in row.reason for row in log)
        if left and not stuck:
            yield f"S17: run {key} is {run.state} with unfinished {left}"
        bad = any(
            row.state in ("failed", "upstream_failed")
            for leaf in _leaves(found.dags[run.version_id])
            for row in mine[leaf]
        )
        if not left and run.state != ("failed" if bad else "success"):
            yield f"S17: run {key} is {run.state}, its leaves say {'failed' if bad else 'success'}"


def _decisions(found: Snapshot) -> Iterator[str]:
    """S7: in a finished run, what ran is what its trigger rule let run, as the parents ended."""
    for key, instances in found.instances.items():
        if found.runs[key].state not in ("success", "failed"):
            continue
        if any(row.state not in FINISHED for rows in instances.values() for row in rows):
            continue  # deadlocked
        dag = found.dags[found.runs[key].version_id]
        if any(one.task_id not in instances for one in dag.tasks):
            continue  # cleared for a newer version, and marked before it started
        for one in dag.tasks:
            for row in instances[one.task_id]:
                yield from _decision(found, dag, one, row)


def _decision(found: Snapshot, dag: SerializedDag, one: SerializedTask, row: Any) -> Iterator[str]:
    log = _since_clear(sorted(found.by_task[row.id], key=lambda entry: int(entry.ti_version)))
    if any(entry.event in _BY_USER or entry.event == Event.REFUSE for entry in log):
        return  # marked; or removed or refused for its length
    above = _above(found, dag, one, row)
    decided = min((entry.id for entry in log if entry.event in _DECISIONS), default=None)
    edits = [e.id for up, _ in above for e in found.by_task[up.id] if e.event in _BY_USER]
    if decided is not None and any(edit > decided for edit in edits):
        return  # its parents ended otherwise when it was decided
    ended = Counter(up.state for up, _ in above)
    setups = [up.state for up, task in above if task.setup and up.state != State.REMOVED]
    counts = Counts(
        total=sum(ended.values()),
        success=ended["success"],
        failed=ended["failed"],
        upstream_failed=ended["upstream_failed"],
        skipped=ended["skipped"],
        removed=ended["removed"],
        setups=len(setups),
        setup_success=setups.count(State.SUCCESS),
        setup_skipped=setups.count(State.SKIPPED),
    )
    ran = any(entry.event == Event.SCHEDULE for entry in log)
    otherwise = any(
        (entry.event == Event.SKIP and entry.reason != "trigger rule")
        or (entry.event == Event.UPSTREAM_FAIL and entry.reason is not None)
        for entry in log
    )
    says = evaluate(one.trigger_rule, counts)
    if ran != (says is Verdict.RUN) and not otherwise:
        rule = f"{one.trigger_rule} says {says} of {counts}"
        yield f"S7: {found.name(row.id)} ran={ran}, {rule}"


def _above(
    found: Snapshot, dag: SerializedDag, one: SerializedTask, row: Any
) -> list[tuple[Any, SerializedTask]]:
    """A task instance's direct parents: in its mapped group, those of its ``map_index`` (H17)."""
    parents = []
    for up in dag.tasks:
        if one.task_id not in up.downstream:
            continue
        rows = found.instances[row.dag_run_id][up.task_id]
        grouped = one.mapped_group is not None and one.mapped_group == up.mapped_group
        if grouped and row.map_index >= 0 and all(parent.map_index >= 0 for parent in rows):
            rows = [parent for parent in rows if parent.map_index == row.map_index]
        parents += [(parent, up) for parent in rows]
    return parents


def _leaves(dag: SerializedDag) -> list[str]:
    """The tasks that decide a run: the leaves, as if teardowns were not there (H18)."""
    present = {one.task_id for one in dag.tasks if not one.teardown or one.on_failure_fail_dagrun}
    return [
        one.task_id
        for one in dag.tasks
        if one.task_id in present and present.isdisjoint(one.downstream)
    ]


def _mapped(found: Snapshot) -> Iterator[str]:
    """H17: a task has one instance of ``map_index`` -1, or instances from 0 on without gaps."""
    for key, instances in found.instances.items():
        for task_id, rows in instances.items():
            places = sorted(row.map_index for row in rows if row.state != State.REMOVED)
            if places and places not in ([-1], list(range(len(places)))):
                yield f"H17: {task_id} of run {key} has instances {places}"
