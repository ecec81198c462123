"""A run of a DAG inside this process: no daemon, no database, one task after the other.

Decisions, the task's life and the triggers are those of the daemons (board, ``execute_task``, the
triggerer's ``live``); only the waiting in between is left out: a retry follows at once, and a
deferral is waited for here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from roost.cli.memory import Memory
from roost.dag import xcom_value
from roost.dag.deferral import timer_payload
from roost.dag.loader import LoadedFile
from roost.dag.param_check import check_conf
from roost.dag.registry import resolve_trigger
from roost.dag.run import run_task
from roost.dag.serialize import serialize_dag
from roost.dag.timetable import infer_manual_interval
from roost.models.states import State
from roost.scheduler.board import Board
from roost.scheduler.plan import Plan
from roost.support import typedjson
from roost.support.clock import SECOND, now_us
from roost.support.user_settings import conf_overrides_params
from roost.support.wire import (
    TRIGGER_TIMEOUT,
    DeferSpec,
    Outcome,
    TaskSpec,
    TriggerReport,
    TriggerSpec,
    XComPull,
)
from roost.triggerer.case import Case, live

__all__ = ["InProcessRun"]

Say = Callable[[str, str, str], None]
"""Called with a task id, its new state and a remark."""


class InProcessRun:
    """One run of one DAG of a loaded file.

    Args:
        loaded: the executed DAG file.
        fileloc: its path relative to the DAGs folder.
        dag_id: which of its DAGs.
        logical_date: microseconds since the epoch, UTC.
        conf: typed JSON object.
        say: told of every change of state.
    """

    def __init__(
        self, loaded: LoadedFile, fileloc: str, dag_id: str, logical_date: int, conf: str, say: Say
    ) -> None:
        self._loaded = loaded
        self._fileloc = fileloc
        self._dag = serialize_dag(loaded.dags[dag_id])
        self._plan = Plan.compile(self._dag)
        self._date = logical_date
        self._interval = infer_manual_interval(self._dag.timetable, logical_date)
        self._conf = msgspec.Raw(conf.encode())
        given: Any = typedjson.decode(conf)
        check_conf(self._dag, given, overrides=conf_overrides_params())
        self._began = now_us()
        self._say = say
        self._dispatches = 0
        self.store = Memory()

    @property
    def task_ids(self) -> list[str]:
        """Every task of the DAG, after its upstream."""
        return [task.task_id for task in self._plan.tasks]

    def run(self) -> dict[str, str]:
        """Run every task; gives their final states, the last word is :meth:`succeeded`'s."""
        tasks = self._plan.tasks
        board = Board(self._plan, ((i, task.task_id, -1, None) for i, task in enumerate(tasks)))
        ready: list[int] = []
        while True:
            decided = board.decide()
            for index in decided.skip:
                self._say(tasks[index].task_id, State.SKIPPED, "")
            for index in decided.upstream_failed:
                self._say(tasks[index].task_id, State.UPSTREAM_FAILED, "")
            ready = sorted([*ready, *decided.run], key=lambda i: (-self._plan.weights[i], i))
            ready = [index for index in ready if board.states[index] == State.SCHEDULED]
            if not ready:
                break
            self._take(board, ready.pop(0))
        self._board = board
        return {task.task_id: board.states[i] for i, task in enumerate(tasks)}

    def succeeded(self) -> bool:
        """Whether the run as a whole did: no leaf task failed."""
        return self._board.outcome() == "success"

    def _take(self, board: Board, index: int) -> None:
        task_id = self._plan.tasks[index].task_id
        if self._plan.empty[index]:
            board.settle(index, State.SUCCESS)
            self._say(task_id, State.SUCCESS, "")
            return
        outcome = self.run_task(task_id)
        board.settle(index, State(outcome.kind))
        skipped = board.force_skip(
            self._plan.index[name] for name in outcome.skip if name in self._plan.index
        )
        for other in skipped:
            self._say(self._plan.tasks[other].task_id, State.SKIPPED, f"by {task_id}")

    def run_task(self, task_id: str) -> Outcome:
        """Run one task with all its tries, whatever its upstream did.

        Raises:
            KeyError: the DAG has no such task.
        """
        task = self._plan.tasks[self._plan.index[task_id]]
        for number in range(1, task.retries + 2):
            outcome = self._try(task_id, number)
            if outcome.kind != "failed" or not outcome.retryable or number > task.retries:
                break
            self._say(task_id, State.UP_FOR_RETRY, f"after try {number} of {task.retries + 1}")
        self._say(task_id, outcome.kind, _last_line(outcome.error))
        return outcome

    def _try(self, task_id: str, number: int) -> Outcome:
        spec = self._spec(task_id, number)
        self.store.task_id = task_id
        while True:
            self._say(task_id, State.RUNNING, f"{spec.next_method}" if spec.next_method else "")
            outcome = run_task(spec, self._loaded, self.store)
            for xcom in outcome.xcoms:
                self.store.push(xcom.key, xcom.value)
            if outcome.kind != "deferred" or outcome.defer is None:
                return outcome
            spec.run_us += outcome.run_us
            self._say(task_id, State.DEFERRED, outcome.defer.classpath)
            spec.next_method = outcome.defer.next_method
            self._resume(spec, outcome.defer)
            late = (spec.trigger_error or "").startswith(TRIGGER_TIMEOUT)
            if late and outcome.defer.on_timeout != "retry":
                return _out_of_time(outcome, spec.trigger_error)
            self._dispatches += 1
            spec.dispatch_id = self._dispatches

    def _resume(self, spec: TaskSpec, deferred: DeferSpec) -> None:
        """Wait for the event and put it, or what went wrong, where the task finds it (D3, D5)."""
        report = self._wait(spec, deferred)
        kwargs: dict[str, object] = msgspec.json.decode(
            deferred.next_kwargs, type=dict[str, msgspec.Raw]
        )
        if report.kind == "fired":
            kwargs["event"] = report.payload
        spec.next_kwargs = msgspec.Raw(msgspec.json.encode(kwargs))
        spec.trigger_error = report.error if report.kind == "failed" else None

    def _wait(self, spec: TaskSpec, deferred: DeferSpec) -> TriggerReport:
        timeout = None if deferred.timeout_us is None else deferred.timeout_us / SECOND
        late = f"{TRIGGER_TIMEOUT} after {timeout} s"
        if deferred.lane == "timer" and deferred.due_at is not None:
            left = max(0.0, (deferred.due_at - now_us()) / SECOND)
            if timeout is not None and timeout < left:
                time.sleep(timeout)
                return TriggerReport(0, 0, "failed", error=late)
            time.sleep(left)
            return TriggerReport(0, 0, "fired", payload=msgspec.Raw(timer_payload(deferred.due_at)))
        if deferred.lane == "external":
            error = "nobody but the daemons can say so: run it under `roost standalone`"
            return TriggerReport(0, 0, "failed", error=error)
        found: list[TriggerReport] = []
        asyncio.run(self._poll(spec, deferred, timeout, found.append))
        return found[0] if found else TriggerReport(0, 0, "failed", error=late)

    async def _poll(
        self,
        spec: TaskSpec,
        deferred: DeferSpec,
        limit: float | None,
        report: Callable[[TriggerReport], None],
    ) -> None:
        async def resolve(case: Case) -> type:
            return resolve_trigger(case.source, self._loaded.triggers, self._loaded)

        case = Case(_trigger_spec(spec, deferred), {})
        if limit is not None:
            # Just before the time-out: what is cancelled then is ours and reports nothing.
            asyncio.get_running_loop().call_later(limit, partial(setattr, case, "leaving", True))
        try:
            async with asyncio.timeout(limit):
                await live(case, resolve, report)
        except TimeoutError:
            return

    def _spec(self, task_id: str, number: int) -> TaskSpec:
        task = self._plan.tasks[self._plan.index[task_id]]
        self._dispatches += 1
        now = now_us()
        return TaskSpec(
            dispatch_id=self._dispatches,
            ti_id=self._plan.index[task_id] + 1,
            dag_id=self._dag.dag_id,
            run_id="test",
            task_id=task_id,
            map_index=-1,
            try_number=number,
            max_tries=task.retries + 1,
            run_type="manual",
            operator=task.operator,
            code_hash=self._loaded.code_hash,
            fileloc=self._fileloc,
            logical_date=self._date,
            interval_start=self._interval.start,
            interval_end=self._interval.end,
            run_queued_at=self._began,
            run_start_date=self._began,
            start_date=now,
            pool=task.pool,
            pool_slots=task.pool_slots,
            queue=task.queue,
            priority_weight=task.priority_weight,
            conf=self._conf,
            execution_timeout_us=task.execution_timeout_us,
        )

    def result(self, task_id: str) -> object:
        """What a task returned, or None."""
        reply = self.store.call(XComPull(task_ids=[task_id]))
        return xcom_value.decode(reply.values[0])


def _out_of_time(deferred: Outcome, error: str | None) -> Outcome:
    """What a deferral that asked to fail for good, or to be skipped, comes to."""
    skips = deferred.defer is not None and deferred.defer.on_timeout == "skip"
    now = now_us()
    if skips:
        return Outcome("skipped", started_at=now, ended_at=now)
    return Outcome("failed", started_at=now, ended_at=now, error=error, retryable=False)


def _trigger_spec(spec: TaskSpec, deferred: DeferSpec) -> TriggerSpec:
    return TriggerSpec(
        trigger_id=spec.dispatch_id,
        epoch=1,
        classpath=deferred.classpath,
        source=deferred.source,
        kwargs=deferred.kwargs,
        code_hash=spec.code_hash,
        fileloc=spec.fileloc,
        dag_id=spec.dag_id,
        run_id=spec.run_id,
        task_id=spec.task_id,
        map_index=spec.map_index,
        try_number=spec.try_number,
    )


def _last_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else ""
