"""A world of its own for DAGs under test: database, scheduler, worker and triggerer in one object.

The decisions are those of the real scheduler on a SQLite file that is deleted afterwards. Only
what takes time is replaced: bodies run in this process, one after the other, and end on the
simulation's clock as if they had run side by side; that clock jumps to the next thing to happen.
"""

from __future__ import annotations

import heapq
import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Engine

from roost.dag.definition import DAG
from roost.exceptions import NotFound, RoostException
from roost.models import schema
from roost.models.engine import Tx, open_engine, read, transact
from roost.models.queries import edits, external, jobs, simulated
from roost.models.transitions import NewRun, create_run
from roost.scheduler.chores.sla import SlaWatch
from roost.scheduler.loop import Report, Scheduler
from roost.support import typedjson
from roost.support.clock import SECOND, duration_us, from_us, now_us, running_on
from roost.support.crypto import Keyring, new_key
from roost.support.event_keys import check_key
from roost.support.event_tokens import read_token
from roost.support.processes import Process
from roost.support.wire import Outcome, TaskSpec
from roost.testing.answers import Answers
from roost.testing.bodies import Bodies
from roost.testing.clock import Clock, moment_us
from roost.testing.files import Files
from roost.testing.results import SimulatedRun
from roost.testing.stub import as_stub
from roost.testing.waiting import Waiting
from roost.worker.answers import Answers as WorkerAnswers
from roost.worker.attendant import Ended
from roost.worker.ledger import Ledger

__all__ = ["Simulation", "SimulationStuck"]

T = TypeVar("T")
_BATCH = 10_000
_MOST_TURNS = 10_000
_REAL_PATIENCE_S = 10.0
_SLA_INTERVAL_US = 60 * SECOND
_EVENTS_AT = "http://simulation"
_EVENT_KEPT_US = 86_400 * SECOND
_ME = Process("simulation", "simulation", os.getpid(), 0, "simulation")


class SimulationStuck(RoostException):
    """Runs have not ended and nothing is left that could happen."""


def _clean_up(engine: Engine, folder: str, waiting: list[Waiting]) -> None:
    for one in waiting:
        # Who forgets a simulation has it collected at any moment: also while a loop runs here.
        closing = threading.Thread(target=one.close)
        closing.start()
        closing.join()
    engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)


class Simulation:
    """DAGs, run by the real scheduler on a clock that jumps. Use it as a context manager.

    Args:
        dags: a DAG, the path of a DAG file, or several of them.
        start: where the clock stands at first; naive moments are UTC. Default: now.
        stubs: what stands in for bodies: a :class:`Stub` or a function of the context, by
            ``task_id``, ``dag_id.task_id``, or ``*`` for every task without another.
        variables: Variables that tasks can read.
        connections: Connections as URIs, by conn_id.
        pools: slots of more pools; ``default_pool`` has 128.
        parallelism: task instances that run at the same time.
        patience_s: real seconds to wait for a trigger that waits for something real.

    Raises:
        DagError: a file cannot be loaded, or a DAG is wrong.
    """

    def __init__(
        self,
        dags: DAG | str | Path | Iterable[DAG | str | Path],
        *,
        start: datetime | None = None,
        stubs: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        connections: Mapping[str, str] | None = None,
        pools: Mapping[str, int] | None = None,
        parallelism: int = 32,
        patience_s: float = _REAL_PATIENCE_S,
    ) -> None:
        self._clock = Clock(now_us() if start is None else moment_us(start))
        self._patience_s = patience_s
        self._keys = Keyring(new_key())
        self._ends: list[tuple[int, int, TaskSpec, Outcome]] = []
        self._order = itertools.count()
        folder = tempfile.mkdtemp(prefix="roost-simulation-")
        self._engine = open_engine(f"sqlite:///{folder}/roost.db", sqlite_synchronous="OFF")
        to_close: list[Waiting] = []
        # Runs may be looked at for as long as anybody has them: the files go with the last one.
        self._finalizer = weakref.finalize(self, _clean_up, self._engine, folder, to_close)
        with self._engine.begin() as connection:
            schema.create(connection)
        self._files = Files(dags)
        self._files.run_bodies_of(stubs or {})
        with running_on(self._clock):
            self._files.store(self._engine, self._clock)
            for name, slots in (pools or {}).items():
                self._transact(partial(edits.set_pool, pool=name, slots=slots))
            self._join(parallelism, stubs or {}, Answers(variables or {}, connections or {}))
        to_close.append(self._waiting)

    def _join(self, parallelism: int, stubs: Mapping[str, Any], answers: Answers) -> None:
        self._scheduler = Scheduler(self._engine, parallelism=parallelism, clock=self._clock)
        self._scheduler.join(self._register("scheduler"))
        self._ledger = Ledger(
            self._engine,
            _ME,
            sorted(self._files.queues),
            "",
            WorkerAnswers(self._keys, events_at=lambda: _EVENTS_AT),
        )
        self._ledger.join()
        self._answers = answers
        self._slas = SlaWatch(self._engine, self._clock) if self._files.have_slas else None
        known = {name: as_stub(value, name) for name, value in stubs.items()}
        self._bodies = Bodies(self._files.loaded, known, self._clock)
        self._waiting = Waiting(
            self._engine,
            self._register("triggerer"),
            self._files.loaded,
            self._clock,
            partial(answers.for_trigger, self._engine),
            self._keys,
            self._patience_s,
        )

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._finalizer()

    # -- what a test asks for

    @property
    def now(self) -> datetime:
        """Where the clock stands, in UTC."""
        return from_us(self._clock.now)

    def runs(self, dag_id: str | None = None) -> list[SimulatedRun]:
        """The runs of a DAG by logical date; the DAG may be left out where there is one."""
        with read(self._engine) as tx:
            keys = simulated.run_keys(tx, self._one(dag_id))
        return [SimulatedRun(self, self._engine, key) for key in keys]

    def trigger(
        self,
        dag_id: str | None = None,
        *,
        run_id: str | None = None,
        logical_date: datetime | None = None,
        conf: Mapping[str, Any] | None = None,
    ) -> SimulatedRun:
        """Ask for a run by hand, as ``roost dags trigger`` does; it starts with the next step.

        Raises:
            RoostException: a run of that id exists.
        """
        dag_id = self._one(dag_id)
        now = self._clock.now
        at = now if logical_date is None else moment_us(logical_date)
        name = run_id or f"manual__{from_us(at).isoformat()}"
        interval = self._files.interval(dag_id, at)
        body = typedjson.encode(dict(conf or {}), name="conf").decode()

        def step(tx: Tx) -> int | None:
            version = simulated.newest_version(tx, dag_id)
            assert version is not None  # noqa: S101 - it was stored at the start
            new = NewRun(
                dag_id,
                name,
                "manual",
                version,
                at,
                interval.start,
                interval.end,
                now,
                body,
            )
            return create_run(tx, new, actor="simulation")

        with running_on(self._clock):
            key = self._transact(step)
        if key is None:
            raise RoostException(f"run {name!r} of {dag_id} exists already; give another run_id")
        return SimulatedRun(self, self._engine, key)

    def send_event(self, key: str, payload: Any = None) -> None:
        """Send an event from outside now, as ``roost events send`` does; it wakes with a step.

        Args:
            key: what ``ExternalTrigger`` waits for; or a URL that a task got of ``callback_url``,
                which is good for one event.
            payload: JSON.

        Raises:
            RoostException: the URL was used before or has expired, or the key cannot be one.
        """
        text = typedjson.encode(payload, name="payload").decode()
        nonce = until = None
        with running_on(self._clock):
            if key.startswith(_EVENTS_AT):
                token = key.rpartition("/")[2]
                key, until, nonce = read_token(self._keys, token, self._clock.now)
            sealed = self._keys.encrypt(text)
            event = external.NewEvent(
                check_key(key), sealed, "simulation", _EVENT_KEPT_US, nonce, until
            )
            if self._transact(partial(external.send, event=event)) is None:
                raise RoostException("this URL was used before")
        self._waiting.anybody = True

    def run(self) -> None:
        """Go on until every run that exists, or becomes due meanwhile, has ended.

        Raises:
            SimulationStuck: a run waits for something that never comes.
        """
        self._run(None)

    def run_until(self, moment: datetime) -> None:
        """Go on until the clock stands at ``moment``; runs may be unfinished then."""
        self._run(moment_us(moment))

    def advance(self, delta: timedelta) -> None:
        """Go on for ``delta``."""
        self._run(self._clock.now + duration_us(delta))

    # -- how time passes

    def _run(self, until: int | None) -> None:
        still = 0
        with running_on(self._clock):
            while True:
                report = self._settle()
                if until is None and not self._ends and not self._unfinished():
                    return
                nearest = self._nearest(report)
                if nearest is None or (until is not None and nearest > until):
                    if until is None and self._waiting.wait_really(self._patience_s):
                        continue
                    if until is None:
                        raise SimulationStuck(self._why_stuck())
                    self._clock.now = max(self._clock.now, until)
                    self._settle()
                    return
                still = 0 if nearest > self._clock.now else still + 1
                if still > _MOST_TURNS:
                    raise SimulationStuck(f"time stands still at {self.now}: {self._why_stuck()}")
                self._clock.now = max(self._clock.now, nearest)

    def _settle(self) -> Report:
        """Everything that happens at this moment."""
        for _ in range(_MOST_TURNS):
            self._files.keep_up(self._engine, self._clock)
            report = self._scheduler.take_turn()
            moved = report.more
            if report.handoffs or report.callbacks:
                moved |= self._begin()
            moved |= self._end_due()
            if self._waiting.anybody:
                moved |= self._waiting.look()
            if self._slas is not None and self._slas.look():
                moved |= self._begin()
            if not moved:
                return report
        raise SimulationStuck(f"time stands still at {self.now}: something repeats for ever")

    def _begin(self) -> bool:
        starts = self._ledger.claim(_BATCH)
        for start in starts:
            supervisor = self._answers.for_task(self._ledger, start.spec)
            outcome = self._bodies.run(start.spec, supervisor)
            end = (outcome.ended_at, next(self._order), start.spec, outcome)
            heapq.heappush(self._ends, end)
        return bool(starts)

    def _end_due(self) -> bool:
        ended = []
        while self._ends and self._ends[0][0] <= self._clock.now:
            _, _, spec, outcome = heapq.heappop(self._ends)
            ended.append(Ended(spec, outcome))
            self._waiting.anybody |= outcome.kind == "deferred"
        if ended:
            self._ledger.store(ended)
        return bool(ended)

    def _nearest(self, report: Report) -> int | None:
        moments = [self._ends[0][0] if self._ends else None, report.next_due]
        if self._waiting.anybody:
            moments.append(self._waiting.next_due())
        if self._slas is not None and self._unfinished():
            moments.append(self._clock.now + _SLA_INTERVAL_US)
        return min((at for at in moments if at is not None), default=None)

    def _unfinished(self) -> bool:
        with read(self._engine) as tx:
            return simulated.unfinished(tx)

    def _why_stuck(self) -> str:
        waiting = ", ".join(self._waiting.polling)
        if waiting:
            return f"no event came within {self._patience_s:g} s (real time) for {waiting}"
        runs = [run for dag_id in self._files.dag_ids for run in self.runs(dag_id)]
        open_ = [f"{run!r} {run.states}" for run in runs if run.end_date is None]
        return f"nothing is left to happen, but these have not ended: {'; '.join(open_[:3])}"

    # -- small help

    def _one(self, dag_id: str | None) -> str:
        known = self._files.dag_ids
        if dag_id is None and len(known) == 1:
            return known[0]
        if dag_id is None or dag_id not in known:
            raise NotFound(f"there is no DAG {dag_id!r} here; there is {', '.join(known)}")
        return dag_id

    def _register(self, kind: str) -> int:
        return self._transact(lambda tx: jobs.register(tx, kind, _ME, ""))

    def _transact(self, step: Callable[[Tx], T]) -> T:
        return transact(self._engine, step)
