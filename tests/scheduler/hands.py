"""Hands instead of processes: they claim dispatches, end them, and fire triggers, in-process.

A :class:`World` is one database with schedulers on a clock that only moves when it is told to, so
that a scenario of days takes milliseconds, and every interleaving can be written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Engine, text

from roost.dag.model import ParsedFile, SerializedDag, SerializedTask, SerializedTimetable
from roost.dag.timetable import parse_schedule
from roost.models import backfill, state_edits
from roost.models.backfill import Reprocess
from roost.models.engine import Tx, open_engine, read, transact
from roost.models.queries import dispatches, edits, handoffs, jobs, runs, xcoms
from roost.models.queries.dispatches import Claimed
from roost.models.slots import as_slots
from roost.models.state_edits import Edited, Mark
from roost.models.transitions import NewRun, create_run
from roost.scheduler.loop import Report, Scheduler
from roost.scheduler.parsing.store import store_file
from roost.support.clock import SECOND
from roost.support.processes import Process
from roost.support.trigger_wire import EndKind
from roost.support.wire import CallbackSpec, DeferSpec, Outcome
from tests.support.checker import violations

__all__ = [
    "DAY",
    "START",
    "Clock",
    "OutcomeOf",
    "World",
    "dag",
    "deferred",
    "failed",
    "lost",
    "ok",
    "skipped",
    "task",
]

T = TypeVar("T")
DAY = 86_400 * SECOND
START = 1_772_366_400 * SECOND  # 2026-03-01T12:00:00Z
_ME = Process("host", "boot:ns", 1, 1, "token")


def task(task_id: str, downstream: str = "", **knobs: Any) -> SerializedTask:
    """A task; ``downstream`` names its children, with spaces between them."""
    return SerializedTask(task_id=task_id, operator="Hands", downstream=downstream.split(), **knobs)


def dag(
    dag_id: str,
    *tasks: SerializedTask,
    schedule: Any = None,
    timezone: str = "UTC",
    **knobs: Any,
) -> SerializedDag:
    """A DAG of tasks in topological order."""
    timetable: SerializedTimetable = parse_schedule(schedule, timezone)
    return SerializedDag(dag_id=dag_id, timetable=timetable, tasks=list(tasks), **knobs)


class Clock:
    """The wall clock of a world, in microseconds."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * SECOND)


OutcomeOf = Callable[["World"], Outcome]


def ok(skip: Sequence[str] = (), run_us: int = 0) -> OutcomeOf:
    """The task succeeds, and skips what its branch does not follow."""
    return lambda world: _outcome(world, "success", skip=list(skip), run_us=run_us)


def skipped(skip: Sequence[str] = ()) -> OutcomeOf:
    """The task skips itself."""
    return lambda world: _outcome(world, "skipped", skip=list(skip))


def failed(error: str = "boom", **fields: Any) -> OutcomeOf:
    """The task fails; fields are those of Outcome, e.g. ``retryable=False``."""
    return lambda world: _outcome(world, "failed", error=error, **fields)


def lost() -> OutcomeOf:
    """The worker that held the task died."""
    return lambda world: _outcome(world, "lost", error="its worker died")


def deferred(
    *, timeout_s: float | None = None, next_kwargs: str = "{}", run_us: int = 0, **spec: Any
) -> OutcomeOf:
    """The task defers, to ``execute_complete`` unless told otherwise."""

    def make(world: World) -> Outcome:
        fields: dict[str, Any] = {
            "lane": "poll",
            "classpath": "hands.Trigger",
            "source": "hands:Trigger",
            "kwargs": msgspec.Raw(b"{}"),
            "next_method": "execute_complete",
            "next_kwargs": msgspec.Raw(next_kwargs.encode()),
            "timeout_us": None if timeout_s is None else round(timeout_s * SECOND),
            **spec,
        }
        return _outcome(world, "deferred", defer=DeferSpec(**fields), run_us=run_us)

    return make


def _outcome(world: World, kind: Any, **fields: Any) -> Outcome:
    return Outcome(kind=kind, started_at=world.clock.now, ended_at=world.clock.now, **fields)


class World:
    """A database with schedulers and a worker, all in this thread.

    Args:
        url: of a database with the newest schema.
        schedulers: how many there are; more than one only on PostgreSQL.
        parallelism: executor slots of each.
        max_losses: as of :class:`Scheduler`.

    Attributes:
        held: what the worker has claimed and not ended, by dispatch id.
        called: the callbacks that the worker has claimed, by dispatch id.
        begun: dispatch ids by ``(run, task_id)``, each a body that began.
    """

    def __init__(
        self, url: str, *, schedulers: int = 1, parallelism: int = 32, max_losses: int = 5
    ) -> None:
        self.engine: Engine = open_engine(url, sqlite_synchronous="OFF")
        self.clock = Clock()
        self.parallelism = parallelism
        self.held: dict[int, Claimed] = {}
        self.begun: dict[tuple[str, str], list[int]] = {}
        self.called: dict[int, CallbackSpec] = {}
        self.schedulers = [
            Scheduler(self.engine, parallelism=parallelism, max_losses=max_losses, clock=self.clock)
            for _ in range(schedulers)
        ]
        for scheduler in self.schedulers:
            scheduler.join(self.register("scheduler"))
        self.worker = self.register("worker")

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    def transact(self, step: Callable[[Tx], T]) -> T:
        """Run one transaction."""
        return transact(self.engine, step)

    def register(self, kind: str) -> int:
        """A new daemon's row."""
        return self.transact(lambda tx: jobs.register(tx, kind, _ME, "/run"))

    def fetch(self, sql: str, **params: Any) -> list[Any]:
        """Rows of a query."""
        with read(self.engine) as tx:
            return list(tx.connection.execute(text(sql), params).all())

    def execute(self, sql: str, **params: Any) -> None:
        """Change something behind everybody's back."""
        self.transact(lambda tx: tx.connection.execute(text(sql), params))

    # -- what a user does ----------------------------------------------------------------------

    def store(self, *dags: SerializedDag, fileloc: str | None = None, paused: bool = False) -> None:
        """Store DAGs as if one file each had been parsed now."""
        for one in dags:
            parsed = ParsedFile("c" * 64, "", [], [one], [])
            place = fileloc or f"{one.dag_id}.py"
            error = self.transact(
                lambda tx, place=place, parsed=parsed: store_file(  # type: ignore[misc]
                    tx, place, parsed, stamp="", took_us=0, paused=paused, clock=self.clock
                )
            )
            assert error is None, error

    def trigger(self, dag_id: str, run_id: str | None = None, *, delay_s: float = 0) -> int:
        """Ask for a run by hand; gives its key."""
        (version,) = self.fetch("SELECT version_id FROM dag WHERE dag_id = :d", d=dag_id)
        now = self.clock.now
        number = self.fetch("SELECT count(*) AS n FROM dag_run")[0].n
        run = NewRun(
            dag_id=dag_id,
            run_id=run_id or f"manual__{number}",
            run_type="manual",
            version_id=version.version_id,
            logical_date=now + number,
            interval_start=now,
            interval_end=now,
            run_after=now + round(delay_s * SECOND),
        )
        key = self.transact(lambda tx: create_run(tx, run, actor="hands"))
        assert key is not None
        return key

    def start(self, *tasks: SerializedTask, **knobs: Any) -> int:
        """Store a DAG ``d`` of these tasks and take the turns that start a run of it."""
        self.store(dag("d", *tasks, **knobs))
        key = self.trigger("d")
        self.turns()
        return key

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Pause or unpause."""
        self.transact(lambda tx: edits.pause_dag(tx, dag_id, paused))

    def pool(self, name: str, slots: int, *, deferred_percent: int | None = None) -> None:
        """Create or change a pool."""
        self.transact(
            lambda tx: edits.set_pool(tx, name, slots=slots, deferred_percent=deferred_percent)
        )

    def ids(self, *names: str, run_key: int | None = None) -> list[int]:
        """Task instances by task id, of one run or of all."""
        rows = self.fetch("SELECT id, task_id, dag_run_id FROM task_instance ORDER BY id")
        return [
            r.id
            for r in rows
            if (not names or r.task_id in names) and run_key in (None, r.dag_run_id)
        ]

    def clear(self, *names: str, run_key: int | None = None, keep_version: bool = False) -> Edited:
        """A user clears these tasks, or all."""
        ids = self.ids(*names, run_key=run_key)
        return self.transact(
            lambda tx: state_edits.clear(tx, ids, actor="cli", keep_version=keep_version)
        )

    def mark(self, state: Mark, *names: str, run_key: int | None = None) -> Edited:
        """A user marks these tasks."""
        ids = self.ids(*names, run_key=run_key)
        return self.transact(lambda tx: state_edits.mark(tx, ids, state, actor="cli"))

    def mark_run(self, run_key: int, state: Literal["success", "failed"]) -> Edited:
        """A user marks a run."""
        return self.transact(lambda tx: state_edits.mark_run(tx, run_key, state, actor="cli"))

    def backfill(
        self,
        dag_id: str,
        first: int,
        last: int,
        *,
        reprocess: Reprocess = "none",
        backwards: bool = False,
        max_active_runs: int = 10,
    ) -> int:
        """A user backfills the intervals between two logical dates; gives the backfill's id."""
        (row,) = self.fetch(
            "SELECT d.version_id, v.data FROM dag d JOIN dag_version v ON v.id = d.version_id "
            "WHERE d.dag_id = :d",
            d=dag_id,
        )
        known = msgspec.json.decode(row.data, type=SerializedDag)

        def step(tx: Tx) -> int:
            infos = backfill.intervals(known, first, last, self.clock.now)
            slots = backfill.plan_backfill(tx, known, infos, reprocess, backwards=backwards)
            return backfill.create_backfill(
                tx,
                known,
                row.version_id,
                slots,
                first=first,
                last=last,
                reprocess=reprocess,
                backwards=backwards,
                max_active_runs=max_active_runs,
                conf="{}",
                actor="cli",
            )

        return self.transact(step)

    # -- what daemons do -----------------------------------------------------------------------

    def turn(self, scheduler: int = 0) -> Report:
        """One turn of a scheduler."""
        return self.schedulers[scheduler].take_turn()

    def turns(self, scheduler: int = 0) -> Report:
        """Turns until there is nothing more to do now."""
        for _ in range(200):
            report = self.turn(scheduler)
            due = report.next_due is not None and report.next_due <= self.clock.now
            if not (report.more or due):
                return report
        raise AssertionError("the scheduler has more to do for ever")

    def claim(self, limit: int = 10_000, queues: Iterable[str] = ("default",)) -> list[Claimed]:
        """The worker takes what waits; bodies begin."""

        def step(tx: Tx) -> list[Claimed]:
            claimed = dispatches.claim(tx, self.worker, list(queues), limit)
            moved = dispatches.start(
                tx, claimed, now=self.clock.now, hostname="host", actor=f"worker:{self.worker}"
            )
            return [one for one in claimed if one.id in moved]

        taken = self.transact(step)
        claimed = [one for one in taken if one.callback is None]
        for one in taken:
            if one.callback is not None:
                self.called[one.id] = msgspec.json.decode(one.callback, type=CallbackSpec)
        for one in claimed:
            self.held[one.id] = one
            self.begun.setdefault((one.run_id, one.task_id), []).append(one.id)
        return claimed

    def end(self, dispatch: Claimed | int, outcome: OutcomeOf) -> bool:
        """A body ends; False when nobody waits for that dispatch any more."""
        id_ = dispatch if isinstance(dispatch, int) else dispatch.id
        return id_ in self.end_all({id_: outcome})

    def end_all(self, outcomes: Mapping[int, OutcomeOf]) -> set[int]:
        """Bodies end together, by dispatch id; gives those whose outcome was taken."""
        bodies = {
            id_: msgspec.json.encode(outcome(self)).decode() for id_, outcome in outcomes.items()
        }
        for id_ in bodies:
            self.held.pop(id_, None)
        return self.transact(lambda tx: dispatches.end_dispatches(tx, self.worker, bodies))

    def obey(self) -> set[int]:
        """The worker kills what users want to end; gives the dispatches."""
        with read(self.engine) as tx:
            wished = dispatches.wished(tx, self.worker)
        return self.end_all(dict.fromkeys(wished & self.held.keys(), lost()))

    def leave(self, dispatch: Claimed, length: int | None) -> None:
        """A body returns a value that others can be mapped over; of no length if None (H17)."""
        value = xcoms.XComValue(dispatch.ti_id, dispatch.id, "return_value", "0", length)
        self.transact(lambda tx: xcoms.push(tx, self.worker, [value]))

    def work(self, **outcomes: OutcomeOf) -> list[str]:
        """Claim all, end each task as told (else ``ok``), settle; gives the tasks that ran."""
        claimed = self.claim()
        self.end_all({one.id: outcomes.get(one.task_id, ok()) for one in claimed})
        self.turns()
        return [one.task_id for one in claimed]

    def calls(self) -> list[str]:
        """Claim, end every callback with success; gives the callbacks that ran, as words."""
        self.claim()
        called, self.called = self.called, {}
        self.end_all(dict.fromkeys(called, ok()))
        self.turns()
        return [
            " ".join(word for word in (c.kind, c.task_id, c.name, c.state, c.reason) if word)
            for c in called.values()
        ]

    def lose_worker(self) -> None:
        """The worker dies; a new one takes its place."""
        gone = self.worker
        lost = msgspec.json.encode(_outcome(self, "lost", error="its worker died")).decode()

        def step(tx: Tx) -> None:
            jobs.end(tx, gone)
            handoffs.end_lost_dispatches(tx, lost)

        self.transact(step)
        self.held.clear()
        self.called.clear()
        self.worker = self.register("worker")

    def lose_scheduler(self, index: int) -> None:
        """A peer declares a scheduler dead; its runs are free to be taken."""
        job_id = self.schedulers[index].job_id

        def step(tx: Tx) -> None:
            jobs.end(tx, job_id)
            runs.release_runs_of_ended_schedulers(tx)

        self.transact(step)

    def fire(
        self,
        task_id: str,
        payload: Any = None,
        *,
        kind: Literal["fired", "failed"] | EndKind = "fired",
        error: str | None = None,
        xcoms: str | None = None,
    ) -> int:
        """Store an event for the trigger that a task waits for, as a triggerer would."""
        (row,) = self.fetch(
            "SELECT g.id, g.epoch FROM trigger g JOIN task_instance t ON t.id = g.ti_id "
            "WHERE t.task_id = :t",
            t=task_id,
        )
        self.fire_id(row.id, payload, kind=kind, error=error, xcoms=xcoms)
        return int(row.id)

    def fire_id(
        self,
        trigger_id: int,
        payload: Any = None,
        *,
        kind: Literal["fired", "failed"] | EndKind = "fired",
        error: str | None = None,
        xcoms: str | None = None,
    ) -> None:
        """Store an event for a trigger; the first one wins, and none comes for one that is gone."""
        values = {
            "id": trigger_id,
            "kind": kind,
            "payload": msgspec.json.encode(payload).decode() if kind == "fired" else None,
            "error": error,
            "xcoms": xcoms,
            "now": self.clock.now,
        }
        self.execute(
            "INSERT INTO trigger_event "
            "(trigger_id, epoch, kind, payload, error, xcoms, created_at) "
            "SELECT id, epoch, CAST(:kind AS varchar), CAST(:payload AS text), "
            "CAST(:error AS text), CAST(:xcoms AS text), :now FROM trigger WHERE id = :id "
            "ON CONFLICT DO NOTHING",
            **values,
        )
        self.execute("UPDATE trigger SET fired_at = :now WHERE id = :id", **values)

    def fire_all(self) -> None:
        """Store an event for every trigger that has none."""
        self.execute(
            "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, created_at) "
            "SELECT id, epoch, 'fired', 'null', :now FROM trigger WHERE fired_at IS NULL",
            now=self.clock.now,
        )
        self.execute("UPDATE trigger SET fired_at = :now", now=self.clock.now)

    def pending_triggers(self) -> list[int]:
        """Triggers without an event."""
        return [row.id for row in self.fetch("SELECT id FROM trigger WHERE fired_at IS NULL")]

    # -- what a test asks ----------------------------------------------------------------------

    def states(self, run_key: int | None = None) -> dict[str, str]:
        """State by task_id, of one run or of the only one."""
        rows = self.fetch("SELECT dag_run_id, task_id, state FROM task_instance ORDER BY id")
        return {r.task_id: r.state for r in rows if run_key in (None, r.dag_run_id)}

    def run_state(self, run_key: int) -> str:
        """State of a run."""
        return str(self.fetch("SELECT state FROM dag_run WHERE id = :k", k=run_key)[0].state)

    def row(self, task_id: str) -> Any:
        """A task instance's row."""
        return self.fetch("SELECT * FROM task_instance WHERE task_id = :t", t=task_id)[0]

    def log(self, task_id: str) -> list[str]:
        """The events of a task, in order."""
        rows = self.fetch(
            "SELECT e.event FROM event_log e JOIN task_instance t ON t.id = e.ti_id "
            "WHERE t.task_id = :t ORDER BY e.ti_id, e.ti_version",
            t=task_id,
        )
        return [row.event for row in rows]

    def reasons(self, *events: str) -> list[str | None]:
        """Why task instances moved by these events."""
        rows = self.fetch("SELECT event, reason FROM event_log WHERE ti_id IS NOT NULL ORDER BY id")
        return [row.reason for row in rows if row.event in events]

    def used(self, pool: str = "default_pool") -> int | float:
        """Slots in use, as the pool's row counts them."""
        return as_slots(int(self.fetch("SELECT used FROM pool WHERE pool = :p", p=pool)[0].used))

    def check(self) -> None:
        """Fail when the database breaks a promise."""
        slots = self.parallelism * len(self.schedulers)
        if broken := violations(self.engine, slots=slots):
            raise AssertionError("\n".join(broken))
