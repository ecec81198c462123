"""From a DAG object to what the scheduler decides on: structure and knobs, no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from roost.dag import docs, knobs
from roost.dag.definition import DAG
from roost.dag.mapped import MappedOperator
from roost.dag.model import (
    CallbackName,
    DagCallbackName,
    SerializedDag,
    SerializedDeadline,
    SerializedTask,
    SerializedWatcher,
)
from roost.dag.operator import BaseOperator
from roost.dag.param import Param, check_defaults, defaults, merged
from roost.dag.starting import serialize_start
from roost.dag.timetable import parse_schedule
from roost.dag.watcher import serialize_watcher
from roost.dag.weights import MAX_WEIGHT, MIN_WEIGHT
from roost.dag.zone import dag_timezone, default_timezone
from roost.exceptions import DagError, RoostException
from roost.support import typedjson
from roost.support.clock import duration_us, to_us

__all__ = ["default_timezone", "serialize_dag"]

_DOCS = ("doc", "doc_md", "doc_json", "doc_yaml", "doc_rst")


def serialize_dag(dag: DAG) -> SerializedDag:
    """``dag`` with its tasks in topological order.

    Raises:
        DagError: it has a cycle, a wrong schedule, or a value that cannot be stored.
    """
    try:
        return _serialize(dag)
    except DagError as error:
        if repr(dag.dag_id) in str(error):
            raise
        raise type(error)(f"DAG {dag.dag_id!r}: {error}") from None


def _serialize(dag: DAG) -> SerializedDag:
    zone = dag_timezone(dag)
    order = dag.topological_sort()
    for task in order:
        _check_setup(task)
    tasks = [_task(task, zone) for task in order]
    timetable = parse_schedule(dag.schedule, zone)
    if dag.parent_dag is not None:  # it runs when its operator says so
        summary = f"sub-DAG of {dag.parent_dag.dag_id}"
        timetable = msgspec.structs.replace(parse_schedule(None, zone), summary=summary)
    check_defaults(dag.params, scheduled=timetable.kind != "null")
    for task in order:
        if task.params:
            seen = merged(dag.params, task.params)
            check_defaults(seen, scheduled=timetable.kind != "null")
    if dag.assets is not None:
        asked = dag.assets.words()
        if timetable.kind != "null":
            asked = f"{asked} or {timetable.summary}"
        timetable = msgspec.structs.replace(timetable, summary=asked)
    return SerializedDag(
        dag_id=dag.dag_id,
        timetable=timetable,
        tasks=tasks,
        start_date=_moment(dag.start_date, zone),
        end_date=_moment(dag.end_date, zone),
        catchup=dag.catchup,
        # Back to back means one after the other: the next run starts when this one has ended.
        max_active_runs=1 if timetable.kind == "continuous" else dag.max_active_runs,
        max_active_tasks=dag.max_active_tasks,
        dagrun_timeout_us=_duration(dag.dagrun_timeout),
        fail_fast=dag.fail_fast,
        max_consecutive_failed_dag_runs=dag.max_consecutive_failed_dag_runs,
        is_paused_upon_creation=_starts_paused(dag),
        owners=sorted({task.owner for task in tasks if task.owner}),
        tags=dag.tags,
        description=dag.description,
        doc_md=docs.doc_md(dag),
        params=_plain(defaults(dag.params), "params"),
        mapped_groups={
            group_id: group.expansion.serialize()
            for group_id, group in dag.group_dict.items()
            if group.expansion is not None
        },
        deadlines=[
            SerializedDeadline(
                reference=one.reference.kind,
                interval_us=duration_us(one.interval),
                at=_moment(one.reference.at, zone),
                name=one.name,
            )
            for one in dag.deadlines
        ],
        assets=dag.assets,
        watchers=_watchers(dag),
        callbacks=[name for name in _DAG_CALLBACKS if getattr(dag, f"{name}_callback")],
        extra=_groups(dag),
    )


def _watchers(dag: DAG) -> list[SerializedWatcher]:
    """The watchers of all assets that the DAG waits for (D13)."""
    found: dict[tuple[str, str], SerializedWatcher] = {}
    for asset in dag.asset_expression.assets() if dag.asset_expression is not None else ():
        for watcher in asset.watchers:
            one = serialize_watcher(asset.uri, watcher)
            if found.setdefault((one.uri, one.name), one) != one:
                raise DagError(f"asset {one.uri!r} has two watchers of the name {one.name!r}")
    return list(found.values())


def _starts_paused(dag: DAG) -> bool | None:
    starts_paused = dag.is_paused_upon_creation
    # A sub-DAG waits for its operator, which is paused with its own DAG.
    return False if starts_paused is None and dag.parent_dag is not None else starts_paused


def _task(task: BaseOperator, zone: str) -> SerializedTask:
    return SerializedTask(
        task_id=task.task_id,
        operator=task.task_type,
        downstream=list(task.downstream),
        trigger_rule=task.trigger_rule,
        owner=task.owner,
        pool=task.pool,
        pool_slots=task.pool_slots,
        queue=task.queue,
        priority_weight=task.priority_weight,
        weight_rule=task.weight_rule,
        retries=task.retries,
        retry_delay_us=duration_us(task.retry_delay),
        retry_exponential_backoff=task.retry_exponential_backoff > 0,
        retry_multiplier=task.retry_exponential_backoff or 2.0,
        effective_weight=_own_weight(task),
        max_retry_delay_us=_duration(task.max_retry_delay),
        execution_timeout_us=_duration(task.execution_timeout),
        depends_on_past=task.depends_on_past,
        wait_for_downstream=task.wait_for_downstream,
        max_active_tis_per_dag=task.max_active_tis_per_dag,
        max_active_tis_per_dagrun=task.max_active_tis_per_dagrun,
        # What the task has from default_args, as the DAG has it, bounds the schedule alone.
        start_date=_moment(_its_own(task.start_date, task.dag.start_date), zone),
        end_date=_moment(_its_own(task.end_date, task.dag.end_date), zone),
        empty=_is_empty(task),
        setup=task.is_setup,
        teardown=task.is_teardown,
        on_failure_fail_dagrun=task.on_failure_fail_dagrun,
        start=serialize_start(task),
        expand=task.expansion.serialize() if isinstance(task, MappedOperator) else None,
        mapped_group=task.mapped_group.group_id if task.mapped_group is not None else None,
        run_as_user=task.run_as_user or None,
        outlets=[asset.uri for asset in task.outlets],
        sla_us=None if task.sla is None else duration_us(task.sla),
        callbacks=_callbacks(task),
        email=task.email,
        email_on_failure=task.email_on_failure,
        email_on_retry=task.email_on_retry,
        extra=_task_extra(task),
    )


def _own_weight(task: BaseOperator) -> int | None:
    """What the task's own strategy says (H24), held within 32 bits."""
    if task.weight_strategy is None:
        return None
    weight = task.weight_strategy.get_weight(task)
    name = f"get_weight() of {type(task.weight_strategy).__name__}"
    return max(MIN_WEIGHT, min(MAX_WEIGHT, knobs.whole(f"task {task.task_id!r}", name, weight)))


def _check_setup(task: BaseOperator) -> None:
    """What depends on a setup must wait for its success (H18)."""
    for child in task.downstream_list if task.is_setup else ():
        if not child.is_teardown and child.trigger_rule != "all_success":
            raise DagError(
                f"task {child.task_id!r} follows the setup {task.task_id!r} and needs "
                f"trigger_rule='all_success', not {child.trigger_rule!r}"
            )


def _its_own(moment: datetime | None, of_dag: datetime | None) -> datetime | None:
    return None if moment == of_dag else moment


_TASK_CALLBACKS: tuple[CallbackName, ...] = get_args(CallbackName)
_DAG_CALLBACKS: tuple[DagCallbackName, ...] = get_args(DagCallbackName)


def _callbacks(task: BaseOperator) -> list[CallbackName]:
    return [name for name in _TASK_CALLBACKS if getattr(task, f"{name}_callback")]


def _is_empty(task: BaseOperator) -> bool:
    """Whether running it would do nothing, so that no process is needed (H27)."""
    kind = task.operator_class if isinstance(task, MappedOperator) else type(task)
    author = next(cls for cls in kind.__mro__ if "execute" in cls.__dict__)
    # A subclass that writes its own execute() has a body again.
    return (
        bool(author.__dict__.get("empty_body"))
        and not task.start_from_trigger
        and not any(asset.extra for asset in task.outlets)
        and not _callbacks(task)
        and all(
            getattr(kind, name) is getattr(BaseOperator, name)
            for name in ("pre_execute", "post_execute")
        )
    )


def _task_extra(task: BaseOperator) -> dict[str, Any]:
    """What listings show of a task; nothing is decided on it. Absent where not set."""
    extra: dict[str, Any] = {
        name: getattr(task, name) for name in _DOCS if getattr(task, name) is not None
    }
    subdag = getattr(task, "subdag", None)
    if isinstance(subdag, DAG):
        extra["subdag_id"] = subdag.dag_id
    if task.task_group is not None:
        extra["task_group"] = task.task_group.group_id
    if task.template_fields:
        extra["template_fields"] = list(task.template_fields)
    if task.params:
        extra["params"] = _plain(defaults(task.params), f"params of task {task.task_id!r}")
        described = _described(merged(task.dag.params, task.params), only=task.params)
        if described:
            extra["param_schemas"] = described
    return extra


def _groups(dag: DAG) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if dag.parent_dag is not None:
        extra |= {"is_subdag": True, "parent": dag.parent_dag.dag_id}
    if dag.group_dict:
        extra["task_groups"] = {
            group_id: group.tooltip for group_id, group in dag.group_dict.items()
        }
    if dag.default_args:
        extra["default_args"] = docs.shown(dag.default_args)
    described = _described(dag.params, only=dag.params)
    if described:
        extra["params"] = described
    return extra


def _described(params: Mapping[str, Any], only: Iterable[str]) -> dict[str, Any]:
    """Description and schema of those params that have any, and whether a run must bring them."""
    described = {}
    for name in only:
        item = params[name]
        if isinstance(item, Param) and (item.description or item.schema or item.required):
            # check_defaults has seen that it is JSON; a tuple in it becomes a list.
            schema = json.loads(json.dumps(item.schema))
            about = {"description": item.description, "schema": schema}
            described[name] = {**about, "required": True} if item.required else about
    plain: dict[str, Any] = _plain(described, "params")
    return plain


def _plain(value: object, name: str) -> Any:
    """Typed JSON as plain objects, to stand inside a larger JSON document."""
    try:
        return msgspec.json.decode(typedjson.encode(value, name=name))
    except RoostException as error:
        raise DagError(str(error)) from None


def _duration(delta: timedelta | None) -> int | None:
    if delta is None:
        return None
    if not isinstance(delta, timedelta) or delta <= timedelta(0):
        raise DagError(f"a time-out must be a timedelta of more than nothing, not {delta!r}")
    return duration_us(delta)


def _moment(moment: datetime | None, zone: str) -> int | None:
    """Microseconds; a naive moment is read in ``zone``, the DAG's own."""
    if moment is None:
        return None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone)))
