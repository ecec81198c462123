"""Messages between processes: supervisor and task, supervisor and trigger runner.

Frames are a four-byte big-endian length and a JSON body (msgspec). User values inside them are
``Raw`` typed JSON (:mod:`roost.support.typedjson`), validated by the process that made them and
passed on untouched. Durations are microseconds; moments microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "DeferSpec",
    "Outcome",
    "OutcomeKind",
    "TaskSpec",
    "TriggerReport",
    "TriggerSpec",
    "XComWrite",
]

OutcomeKind = Literal["success", "failed", "skipped", "deferred", "lost"]


class TaskSpec(msgspec.Struct):
    """Everything a task process needs to know about one dispatch of a task instance."""

    dispatch_id: int
    ti_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    run_type: str
    operator: str
    code_hash: str
    fileloc: str  # relative to the DAGs folder
    logical_date: int | None
    interval_start: int | None
    interval_end: int | None
    run_queued_at: int
    run_start_date: int | None
    start_date: int  # first start of this try; kept over deferrals (D3)
    pool: str
    pool_slots: int
    queue: str
    priority_weight: int
    conf: msgspec.Raw  # typed JSON object
    next_method: str | None = None
    next_kwargs: msgspec.Raw | None = None  # typed JSON object, holds "event" after a fire (D3)
    trigger_error: str | None = None  # set when the trigger failed or timed out
    run_us: int = 0  # user-code time already spent in this try (D7)
    execution_timeout_us: int | None = None


class XComWrite(msgspec.Struct):
    """One value to store under ``key`` for the task instance that made it."""

    key: str
    value: msgspec.Raw


class DeferSpec(msgspec.Struct):
    """What ``defer()`` stored: the trigger and how to come back.

    Attributes:
        lane: ``timer`` (``due_at`` is set, no code runs), ``external`` (``key`` is set) or ``poll``.
        classpath: what the trigger's ``serialize()`` named.
        source: ``module:qualname`` of the class as the process that deferred knows it.
    """

    lane: Literal["timer", "external", "poll"]
    classpath: str
    source: str
    kwargs: msgspec.Raw
    next_method: str | None
    next_kwargs: msgspec.Raw
    due_at: int | None = None
    key: str | None = None
    timeout_us: int | None = None


class Outcome(msgspec.Struct):
    """How a dispatch ended. The worker stores it; the scheduler settles it.

    Attributes:
        error: one line or a traceback for ``failed`` and ``lost``.
        retryable: False when the task must not be tried again (``FailTask``).
        skip: task ids to skip directly, decided by the task itself (branches, LatestOnly).
        xcoms: values written in the same transaction as the outcome.
        run_us: user-code time of this dispatch.
    """

    kind: OutcomeKind
    started_at: int
    ended_at: int
    error: str | None = None
    retryable: bool = True
    skip: list[str] = []
    xcoms: list[XComWrite] = []
    defer: DeferSpec | None = None
    run_us: int = 0
    exit_code: int | None = None


class TriggerSpec(msgspec.Struct):
    """One trigger to run, as the triggerer hands it to its runner child."""

    trigger_id: int
    epoch: int
    classpath: str
    source: str
    kwargs: msgspec.Raw
    code_hash: str
    fileloc: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int


class TriggerReport(msgspec.Struct):
    """What became of a trigger: it fired with a payload, or it failed."""

    trigger_id: int
    epoch: int
    kind: Literal["fired", "failed"]
    payload: msgspec.Raw | None = None
    error: str | None = None
