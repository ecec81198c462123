"""What a task sees of itself and its run: ``ti`` and ``dag_run`` in the context."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from roost.dag import runtime, xcom_value
from roost.dag.xcom_arg import RETURN_KEY
from roost.exceptions import RoostException
from roost.support.clock import from_us
from roost.support.task_requests import XComPull, XComPush
from roost.support.wire import TaskSpec

if TYPE_CHECKING:
    from roost.dag.operator import BaseOperator

__all__ = ["DagRun", "TaskInstance"]


log = logging.getLogger("roost.task")


class DagRun(msgspec.Struct, frozen=True):
    """The run that a task belongs to. Moments are aware and in UTC."""

    dag_id: str
    run_id: str
    run_type: str
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    queued_us: int
    start_us: int | None
    conf: dict[str, Any] = {}

    @property
    def queued_at(self) -> datetime:
        """When it was made."""
        return from_us(self.queued_us)

    @property
    def start_date(self) -> datetime | None:
        """When it began to run; None: it has not."""
        return None if self.start_us is None else from_us(self.start_us)

    @property
    def execution_date(self) -> datetime | None:
        """Older name of ``logical_date`` (S20)."""
        return self.logical_date

    @property
    def external_trigger(self) -> bool:
        """Whether somebody triggered it, rather than the schedule (S27)."""
        return self.run_type == "manual"


class TaskInstance:
    """One task in one run. ``ti`` and ``task_instance`` in the context."""

    def __init__(self, task: BaseOperator, spec: TaskSpec, dag_run: DagRun) -> None:
        self.task = task
        self.dag_run = dag_run
        self.dag_id = spec.dag_id
        self.run_id = spec.run_id
        self.task_id = spec.task_id
        self.map_index = spec.map_index
        self.try_number = spec.try_number
        self.max_tries = spec.max_tries
        self.dispatch_id = spec.dispatch_id
        self.operator = spec.operator
        self.pool = spec.pool
        self.queue = spec.queue
        self.priority_weight = spec.priority_weight
        self.logical_date = dag_run.logical_date
        self.log = log
        self._start_us = spec.start_date
        #: ``running`` in the task itself; a callback finds what it came to, and when it ended.
        self.state = "running"
        self.end_date: datetime | None = None
        #: Tasks that this one skips directly when it ends (branches).
        self.skips: list[str] = []

    @property
    def execution_date(self) -> datetime | None:
        """Older name of ``logical_date`` (S20)."""
        return self.logical_date

    @property
    def start_date(self) -> datetime:
        """When this try began, its first part if it was deferred."""
        return from_us(self._start_us)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """``(dag_id, task_id, run_id, try_number, map_index)``."""
        return (self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    def skip_downstream(self, task_ids: Iterable[str]) -> None:
        """Skip these tasks of the run when this task ends, whatever their trigger rule."""
        self.skips.extend(task_ids)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``; other tasks see it at once (S54).

        Raises:
            ValueNotStorable: the value is not typed JSON, or too large.
        """
        write = xcom_value.encode(self.task_id, key, value)
        runtime.ask(XComPush(write.key, write.value, write.length), f"XCom {key!r}")

    def xcom_pull(
        self,
        task_ids: str | Iterable[str] | None = None,
        key: str | None = RETURN_KEY,
        dag_id: str | None = None,
        include_prior_dates: bool = False,
        *,
        map_indexes: int | Iterable[int] | None = None,
        default: Any = None,
        run_id: str | None = None,
    ) -> Any:
        """Values that tasks left (S56, S57).

        The value of a mapped task is the list of what its instances left. Inside a mapped group,
        that of a task of the same group is what the instance with the same map_index left (H17).

        Args:
            task_ids: one id: its most recent matching value; several: a list of such values in
                the order asked for; None: the most recent value of any task.
            key: None removes the filter.
            dag_id: default: this DAG.
            include_prior_dates: look at earlier runs, too.
            map_indexes: only that instance of a mapped task; several: a list of their values.
            default: what stands for a value that is not there.
            run_id: default: this run.
        """
        several = task_ids is not None and not isinstance(task_ids, str)
        ids = [task_ids] if isinstance(task_ids, str) else _ids(task_ids)
        request = XComPull(
            task_ids=ids,
            key=key,
            dag_id=dag_id,
            run_id=run_id,
            include_prior_dates=include_prior_dates,
        )
        if ids == []:
            return []
        if map_indexes is not None and not isinstance(map_indexes, int):
            rows = [_pull(request, default, map_index=index) for index in map_indexes]
            found = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in ids or "1"]
        elif map_indexes is not None:
            found = _pull(request, default, map_index=map_indexes)
        elif ids is not None and dag_id in (None, self.dag_id) and any(map(self._place, ids)):
            found = [
                _pull(request, default, task_ids=[task_id], **self._place(task_id))[0]
                for task_id in ids
            ]
        else:
            found = _pull(request, default)
        return found if several else found[0]

    def _place(self, task_id: str) -> dict[str, Any]:
        """How to ask for what a task left, as seen from this one; empty if it is not mapped."""
        task = self.task.dag.task_dict.get(task_id)
        if task is None:
            return {}
        group = task.mapped_group
        if group is not None and group is self.task.mapped_group:
            return {"map_index": self.map_index}
        return {"gather": True} if task.is_mapped or group is not None else {}

    def __repr__(self) -> str:
        return f"<TaskInstance {self.dag_id}.{self.task_id} {self.run_id} try {self.try_number}>"


def _pull(request: XComPull, default: Any, **changes: Any) -> list[Any]:
    """One value for each task asked for, ``default`` where there is none."""
    request = msgspec.structs.replace(request, **changes)
    found = runtime.ask(request, "xcom_pull").values
    values = [xcom_value.decode(raw, gathered=request.gather) for raw in found] or [None]
    return [default if value is None else value for value in values]


def _ids(task_ids: Iterable[str] | None) -> list[str] | None:
    if task_ids is None:
        return None
    ids = list(task_ids)
    for task_id in ids:
        if not isinstance(task_id, str):
            raise RoostException(f"xcom_pull: task_ids must be strings, not {task_id!r}")
    return ids
