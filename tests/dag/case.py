"""A stand-in supervisor and dispatches, to run tasks in-process without any database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from roost.dag import DAG
from roost.dag.loader import LoadedFile, load_dag_file, read_source
from roost.dag.operator import BaseOperator
from roost.dag.run import execute_task
from roost.support import typedjson
from roost.support.clock import to_us
from roost.support.elements import element_of, length_of, list_of
from roost.support.mail import Smtp
from roost.support.task_requests import (
    AssetEventsGet,
    CallbackUrl,
    ConnectionGet,
    ConnectionRecord,
    MailSettings,
    PreviousRun,
    Reply,
    Request,
    RunCreate,
    RunRecord,
    RunStates,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComPull,
    XComPush,
)
from roost.support.wire import Outcome, TaskSpec

__all__ = ["FakeSupervisor", "a_dag", "load_text", "raw", "run", "spec_for"]

DAY = 86_400_000_000
LOGICAL = to_us(datetime(2026, 1, 31, 3, tzinfo=UTC))
NOTHING = msgspec.Raw(b"null")


def raw(value: object) -> msgspec.Raw:
    """``value`` as typed JSON."""
    return msgspec.Raw(typedjson.encode(value))


class FakeSupervisor:
    """Answers from dictionaries and remembers what it was asked."""

    def __init__(self, task_id: str = "") -> None:
        self.task_id = task_id
        self.xcoms: dict[tuple[str, str], msgspec.Raw] = {}
        # Of mapped tasks, by map_index.
        self.instances: dict[tuple[str, str], dict[int, msgspec.Raw]] = {}
        self.variables: dict[str, str] = {}
        self.connections: dict[str, ConnectionRecord] = {}
        self.previous: list[RunRecord] = []
        self.asked: list[Request] = []
        self.error: str | None = None
        self.run_replies: list[Reply] = []
        self.smtp: Smtp | None = None

    def call(self, request: Request) -> Reply:
        """Answer one request."""
        # Through the wire and back, as in life.
        request = msgspec.json.decode(msgspec.json.encode(request), type=Request)
        self.asked.append(request)
        reply = Reply(error=self.error) if self.error else self._answer(request)
        return msgspec.json.decode(msgspec.json.encode(reply), type=Reply)

    def _answer(self, request: Request) -> Reply:
        match request:
            case XComPull():
                wanted = request.task_ids or [next(iter(self.xcoms), ("", ""))[0]]
                return Reply(values=[self._pulled(task_id, request) for task_id in wanted])
            case XComPush(key, value):
                self.xcoms[self.task_id, key] = value
                return Reply()
            case PreviousRun():
                return Reply(runs=self.previous)
            case VariableGet(key):
                return Reply(text=self.variables.get(key))
            case VariableSet(key, text):
                self.variables[key] = text
                return Reply()
            case VariableDelete(key):
                return Reply(count=int(self.variables.pop(key, None) is not None))
            case RunCreate() | RunStates():
                return self.run_replies.pop(0)
            case ConnectionGet(conn_id):
                return Reply(connection=self.connections.get(conn_id))
            case MailSettings() | AssetEventsGet() | CallbackUrl():
                return Reply(smtp=self.smtp, text="https://roost.example/events/TOKEN-7351")

    def _pulled(self, task_id: str, request: XComPull) -> msgspec.Raw:
        left = self.instances.get((task_id, request.key or ""), {})
        if request.gather:
            found = list_of([left[index] for index in sorted(left)])
        elif request.map_index is not None and left:
            found = left.get(request.map_index, NOTHING)
        else:
            found = self._find(task_id, request.key)
        if request.measure:
            return raw(length_of(typedjson.decode(found)))
        return found if request.element is None else element_of(found, request.element)

    def _find(self, task_id: str, key: str | None) -> msgspec.Raw:
        for (owner, name), value in reversed(self.xcoms.items()):
            if owner == task_id and key in (None, name):
                return value
        return NOTHING


def spec_for(task: BaseOperator, **changes: Any) -> TaskSpec:
    """A dispatch of ``task`` in the run of 2026-01-31."""
    fields: dict[str, Any] = {
        "dispatch_id": 7,
        "ti_id": 1,
        "dag_id": task.dag_id,
        "run_id": "scheduled__2026-01-31",
        "task_id": task.task_id,
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
        "run_type": "scheduled",
        "operator": type(task).__name__,
        "code_hash": "0",
        "fileloc": "file.py",
        "logical_date": LOGICAL,
        "interval_start": LOGICAL,
        "interval_end": LOGICAL + DAY,
        "run_queued_at": LOGICAL + DAY,
        "run_start_date": LOGICAL + DAY,
        "start_date": LOGICAL + DAY,
        "pool": task.pool,
        "pool_slots": 1,
        "queue": task.queue,
        "priority_weight": 1,
        "conf": raw({}),
        **changes,
    }
    return TaskSpec(**fields)


def run(
    task: BaseOperator, supervisor: FakeSupervisor | None = None, **changes: Any
) -> tuple[Outcome, dict[str, Any]]:
    """Run ``task``; its outcome and the values it returned, by key.

    The values are kept by ``supervisor``, so that the next task can pull them.
    """
    supervisor = supervisor or FakeSupervisor()
    supervisor.task_id = task.task_id
    outcome = execute_task(task, spec_for(task, **changes), supervisor)
    for write in outcome.xcoms:
        supervisor.xcoms[task.task_id, write.key] = write.value
        left = supervisor.instances.setdefault((task.task_id, write.key), {})
        left[changes.get("map_index", -1)] = write.value
    return outcome, {write.key: typedjson.decode(write.value) for write in outcome.xcoms}


def a_dag(dag_id: str = "d", **arguments: Any) -> DAG:
    """A DAG that starts in 2026."""
    return DAG(dag_id, **{"start_date": datetime(2026, 1, 1, tzinfo=UTC), **arguments})


def load_text(folder: Path, text: str, name: str = "file.py") -> LoadedFile:
    """Write a DAG file below ``folder`` and load it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_dag_file(str(path), read_source(str(path)), str(folder))


def probe(
    task_id: str, function: Callable[[dict[str, Any]], Any], **arguments: Any
) -> BaseOperator:
    """A task that calls ``function(context)``."""

    class Probe(BaseOperator):
        def execute(self, context: dict[str, Any]) -> Any:
            return function(context)

    return Probe(task_id=task_id, **arguments)
