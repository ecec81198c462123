"""A run of a DAG inside this process: no daemon, no database, one task after the other.

Decisions, the task's life and the triggers are those of the daemons (board, ``execute_task``, the
triggerer's ``live``); only the waiting in between is left out: a retry follows at once, and a
deferral is waited for here.

``roost.testing`` runs DAGs on a clock that jumps. Here what tasks wait for is real: a sensor on
that clock would time out before its file can come, and a ``sleep`` for a server would not wait.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from roost.cli.memory import Memory
from roost.cli.started import start_in_trigger
from roost.dag import xcom_value
from roost.dag.deferral import timer_payload
from roost.dag.expansion import max_map_length
from roost.dag.loader import LoadedFile
from roost.dag.param import param_scopes
from roost.dag.param_check import check_conf
from roost.dag.registry import resolve_trigger
from roost.dag.run import run_task
from roost.dag.runtime import serving_triggers
from roost.dag.serialize import serialize_dag
from roost.dag.timetable import infer_manual_interval
from roost.models.states import State
from roost.scheduler.lengths import NOTHING, NoLength, length_of, xcoms_of
from roost.scheduler.mapped import MappedBoard, open_board
from roost.scheduler.plan import Plan
from roost.support import typedjson
from roost.support.clock import SECOND, now_us
from roost.support.event_keys import RESERVED
from roost.support.task_requests import XComPull
from roost.support.trigger_wire import TriggerReport, TriggerSpec
from roost.support.user_settings import conf_overrides_params
from roost.support.wire import NOWHERE, TRIGGER_TIMEOUT, DeferSpec, Outcome, TaskSpec
from roost.triggerer.asking import Asking
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
        events: payloads of events from outside, by key, in their order; typed JSON. A wait takes
            the next of its key.
    """

    def __init__(
        self,
        loaded: LoadedFile,
        fileloc: str,
        dag_id: str,
        logical_date: int,
        conf: str,
        say: Say,
        events: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._loaded = loaded
        self._fileloc = fileloc
        self._dag = serialize_dag(loaded.dags[dag_id])
        self._plan = Plan.compile(self._dag)
        self._date = logical_date
        self._interval = infer_manual_interval(self._dag.timetable, logical_date)
        self._conf = msgspec.Raw(conf.encode())
        given: Any = typedjson.decode(conf)
        check_conf(param_scopes(self._dag), given, overrides=conf_overrides_params())
        self._began = now_us()
        self._say = say
        self._events = {key: list(payloads) for key, payloads in (events or {}).items()}
        self._dispatches = 0
        self.store = Memory()

    @property
    def task_ids(self) -> list[str]:
        """Every task of the DAG, after its upstream."""
        return [task.task_id for task in self._plan.tasks]

    def run(self) -> dict[str, str]:
        """Run every task; gives their final states, the last word is :meth:`succeeded`'s.

        An instance of a mapped task goes by the name ``task[map_index]`` (H17).
        """
        tasks = self._plan.tasks
        self._board = board = open_board(
            self._plan, ((i, task.task_id, -1, None) for i, task in enumerate(tasks))
        )
        ready: list[int] = []
        while True:
            decided = board.decide()
            for index in decided.skip:
                self._say(self._name(index), State.SKIPPED, "")
            for index in decided.upstream_failed:
                self._say(self._name(index), State.UPSTREAM_FAILED, "")
            for shell in decided.expand:
                self._expand(shell)
            ready = sorted(
                [*ready, *decided.run], key=lambda i: (-board.weights[i], board.origin[i], i)
            )
            ready = [index for index in ready if board.states[index] == State.SCHEDULED]
            if ready:
                self._take(ready.pop(0))
            elif not decided.expand:
                break
        every = [i for task in range(len(tasks)) for i in board.instances(task)]
        return {self._name(i): board.states[i] for i in every}

    def succeeded(self) -> bool:
        """Whether the run as a whole did: no leaf task failed."""
        return self._board.outcome() == "success"

    def _name(self, index: int) -> str:
        return _name(self._board.tasks[index].task_id, self._board.map_index(index))

    def _expand(self, shell: int) -> None:
        """Replace a mapped task, and the other tasks of its group, by their instances."""
        board = self._board
        assert isinstance(board, MappedBoard), "only a mapped board asks"  # noqa: S101
        if board.expanded(shell) or board.states[shell] != State.NONE:
            return  # with another task of its group
        unit = self._plan.mapped[shell]
        members = [member for member in unit.members if board.states[member] == State.NONE]
        try:
            left = self.store.left(xcoms_of(unit.expand))
            length = length_of(board, unit.expand, left, max_map_length())
        except NoLength as unknown:
            board.settle(shell, unknown.state)
            self._say(self._name(shell), unknown.state, str(unknown))
            return
        for member in members if not length else ():
            board.settle(member, State.SKIPPED)
            self._say(self._name(member), State.SKIPPED, NOTHING)
        if length:
            free = len(board.states)
            instances = {}
            for member in members:
                instances[member] = [(k, free + k) for k in range(length)]
                free += length
            board.expand(instances)

    def _take(self, index: int) -> None:
        board, name = self._board, self._name(index)
        if board.empty[index]:
            board.settle(index, State.SUCCESS)
            self._say(name, State.SUCCESS, "")
            return
        outcome = self.run_task(board.tasks[index].task_id, board.map_index(index))
        board.settle(index, State(outcome.kind))
        skip = [self._plan.index[task] for task in outcome.skip if task in self._plan.index]
        for other in board.force_skip(i for task in skip for i in board.concerned(index, task)):
            self._say(self._name(other), State.SKIPPED, f"by {name}")

    def run_task(self, task_id: str, map_index: int = -1) -> Outcome:
        """Run one task with all its tries, whatever its upstream did.

        Args:
            task_id: which one.
            map_index: which of its instances, of a mapped task.

        Raises:
            KeyError: the DAG has no such task.
        """
        task, name = self._plan.tasks[self._plan.index[task_id]], _name(task_id, map_index)
        for number in range(1, task.retries + 2):
            outcome = self._try(task_id, map_index, number)
            if outcome.kind != "failed" or not outcome.retryable or number > task.retries:
                break
            self._say(name, State.UP_FOR_RETRY, f"after try {number} of {task.retries + 1}")
        self._say(name, outcome.kind, outcome.map_name or _last_line(outcome.error))
        return outcome

    def place_of(self, task_id: str) -> int:
        """The first map_index that a task has: 0, or -1 of one that is not mapped."""
        return 0 if self._plan.index[task_id] in self._plan.mapped else -1

    def _try(self, task_id: str, map_index: int, number: int) -> Outcome:
        spec, name = self._spec(task_id, map_index, number), _name(task_id, map_index)
        self.store.task_id, self.store.map_index = task_id, map_index
        while True:
            self._say(name, State.RUNNING, f"{spec.next_method}" if spec.next_method else "")
            start = self._plan.tasks[self._plan.index[task_id]].start
            outcome = start_in_trigger(start, spec, self._loaded, self.store) or run_task(
                spec, self._loaded, self.store
            )
            for xcom in outcome.xcoms:
                self.store.push(xcom.key, xcom.value, xcom.length)
            if outcome.kind != "deferred" or outcome.defer is None:
                return outcome
            spec.run_us += outcome.run_us
            self._say(name, State.DEFERRED, outcome.defer.classpath)
            spec.next_method = outcome.defer.next_method
            report = self._wait(spec, outcome.defer)
            ended = _ended_by(report, outcome.defer)
            if ended is not None:
                for xcom in ended.xcoms:
                    self.store.push(xcom.key, xcom.value, xcom.length)
                return ended
            _resume(spec, outcome.defer, report)
            late = (spec.trigger_error or "").startswith(TRIGGER_TIMEOUT)
            if late and outcome.defer.on_timeout != "retry":
                return _out_of_time(outcome, spec.trigger_error)
            self._dispatches += 1
            spec.dispatch_id = self._dispatches

    def _wait(self, spec: TaskSpec, deferred: DeferSpec) -> TriggerReport:
        timeout = None if deferred.timeout_us is None else deferred.timeout_us / SECOND
        late = f"{TRIGGER_TIMEOUT} after {timeout} s"
        if deferred.lane == "timer" and deferred.due_at is not None:
            left = max(0.0, (deferred.due_at - now_us()) / SECOND)
            if timeout is not None and timeout < left:
                time.sleep(timeout)
                return TriggerReport(0, 0, "failed", error=late)
            time.sleep(left)
            if deferred.next_method is None:
                return TriggerReport(0, 0, "end_success")
            return TriggerReport(0, 0, "fired", payload=msgspec.Raw(timer_payload(deferred.due_at)))
        if deferred.lane == "external":
            return self._heard(deferred.key or "")
        found: list[TriggerReport] = []
        asyncio.run(self._poll(spec, deferred, timeout, found.append))
        return found[0] if found else TriggerReport(0, 0, "failed", error=late)

    def _heard(self, key: str) -> TriggerReport:
        """The next event of a key that was given."""
        if self._events.get(key):
            payload = self._events[key].pop(0)
            return TriggerReport(0, 0, "fired", payload=msgspec.Raw(payload.encode()))
        error = "nobody but the daemons can say so: run it under `roost standalone`"
        if not key.startswith(RESERVED):
            error = f"no event {key!r} was given: --event {shlex.quote(f'{key}=JSON')}"
        return TriggerReport(0, 0, "failed", error=error)

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

        def take(told: TriggerReport) -> None:
            report(told)
            case.receive(stored=True)  # there is no database to wait for

        if limit is not None:
            # Just before the time-out: what is cancelled then is ours and reports nothing.
            asyncio.get_running_loop().call_later(limit, partial(setattr, case, "leaving", True))
        try:
            async with asyncio.timeout(limit):
                with serving_triggers(Asking.of(self.store)):
                    await live(case, resolve, take)
        except TimeoutError:
            return

    def _spec(self, task_id: str, map_index: int, number: int) -> TaskSpec:
        task = self._plan.tasks[self._plan.index[task_id]]
        self._dispatches += 1
        now = now_us()
        return TaskSpec(
            dispatch_id=self._dispatches,
            ti_id=self._plan.index[task_id] + 1,
            dag_id=self._dag.dag_id,
            run_id="test",
            task_id=task_id,
            map_index=map_index,
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


def _resume(spec: TaskSpec, deferred: DeferSpec, report: TriggerReport) -> None:
    """Put the event, or what went wrong, where the task finds it (D3, D5)."""
    kwargs: dict[str, object] = msgspec.json.decode(
        deferred.next_kwargs, type=dict[str, msgspec.Raw]
    )
    if report.kind == "fired":
        kwargs["event"] = report.payload
    spec.next_kwargs = msgspec.Raw(msgspec.json.encode(kwargs))
    spec.trigger_error = report.error if report.kind == "failed" else None


def _ended_by(report: TriggerReport, deferred: DeferSpec) -> Outcome | None:
    """How a trigger ended its task without it, as the scheduler would have it; else None (D11)."""
    now = now_us()
    match report.kind:
        case "end_success":
            return Outcome("success", started_at=now, ended_at=now, xcoms=report.xcoms)
        case "end_skipped":
            return Outcome("skipped", started_at=now, ended_at=now, xcoms=report.xcoms)
        case "end_failed":
            error = report.error or "its trigger says that it failed"
            return Outcome("failed", started_at=now, ended_at=now, error=error)
        case "fired" if deferred.next_method is None:
            return Outcome("failed", started_at=now, ended_at=now, error=NOWHERE)
    return None


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


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _last_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else ""
