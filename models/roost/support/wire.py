"""What a dispatch is told, and what it comes to: between scheduler, supervisor and task.

What a task asks on the way is :mod:`roost.support.task_requests`; what a trigger runner is told and
tells, :mod:`roost.support.trigger_wire`.

Frames are a four-byte big-endian length and a JSON body (msgspec). User values inside them are
``Raw`` typed JSON (:mod:`roost.support.typedjson`), validated by the process that made them and
passed on untouched. A field is never ``Raw | None``: msgspec can write that but not read it.
Durations are microseconds; moments microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "NOWHERE",
    "TRIGGER_TIMEOUT",
    "CallbackSpec",
    "DeferSpec",
    "OnTimeout",
    "Outcome",
    "OutcomeKind",
    "TaskSpec",
    "XComWrite",
]

# What TaskSpec.trigger_error begins with when defer(timeout=…) ran out (D6); any other text is a
# failure of the trigger itself (D5).
TRIGGER_TIMEOUT = "Trigger timeout"

# D1: why a task fails whose trigger fired although nothing is to be called then.
NOWHERE = (
    "the trigger fired, but defer() named no method to come back to: name one, or let the trigger "
    "yield TaskSuccessEvent, TaskFailedEvent or TaskSkippedEvent"
)

OutcomeKind = Literal["success", "failed", "skipped", "deferred", "lost"]
OnTimeout = Literal["retry", "fail", "skip"]


class CallbackSpec(msgspec.Struct, omit_defaults=True):
    """A callback or an e-mail that a task process is to run instead of a task's body (H23).

    Attributes:
        kind: whose it is: a task instance's, its run's, its DAG's SLA, or a deadline.
        name: which one, e.g. ``on_failure``; ``email`` sends the mail that the knobs ask for.
        ti_id: the task instance that it is about.
        state: what that one, or the run, came to.
        reason: one line: why.
        error: traceback of the failed try.
        position: which deadline.
        detail: more for its context, typed JSON.
        start_date: when the try, or the run, began.
        end_date: when it ended.
    """

    kind: Literal["task", "dag", "sla", "deadline"]
    name: str
    ti_id: int | None = None
    task_id: str | None = None
    map_index: int = -1
    try_number: int = 0
    state: str = ""
    reason: str = ""
    error: str | None = None
    position: int = 0
    detail: msgspec.Raw = msgspec.Raw(b"{}")
    start_date: int | None = None
    end_date: int | None = None


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
    next_kwargs: msgspec.Raw = msgspec.Raw(b"{}")  # typed JSON object; holds "event" after a fire
    trigger_error: str | None = None  # set when the trigger failed or timed out
    run_us: int = 0  # user-code time already spent in this try (D7)
    execution_timeout_us: int | None = None
    run_as_user: str | None = None
    callback: CallbackSpec | None = None  # run this instead of the task's body


class XComWrite(msgspec.Struct):
    """One value to store under ``key`` for the task instance that made it.

    ``length`` is that of a list or dict: how many instances a task mapped over it has (H17).
    """

    key: str
    value: msgspec.Raw
    length: int | None = None


class DeferSpec(msgspec.Struct):
    """What ``defer()`` stored: the trigger and how to come back.

    Attributes:
        lane: ``timer`` (``due_at`` is set, no code runs), ``external`` (``key`` is set) or
            ``poll``.
        classpath: what the trigger's ``serialize()`` named.
        source: ``module:qualname`` of the class as the process that deferred knows it.
        on_timeout: what the task comes to when no event comes within ``timeout_us``: it is tried
            again while tries are left, it fails for good, or it is skipped.
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
    on_timeout: OnTimeout = "retry"


class Outcome(msgspec.Struct, omit_defaults=True):
    """How a dispatch ended. The worker stores it; the scheduler settles it.

    Attributes:
        error: one line or a traceback for ``failed`` and ``lost``.
        retryable: False when the task must not be tried again (``FailTask``, a retry policy).
        retry_delay_us: wait so long before the next try; None: as the task's knobs say.
        skip: task ids to skip directly, decided by the task itself (branches, LatestOnly).
        xcoms: values written in the same transaction as the outcome.
        run_us: user-code time of this dispatch.
        map_name: what the instance of a mapped task is called, by its map_index_template.
        callback_errors: how many callbacks raised (H23).
        assets: what to keep with the events of its outlets, typed JSON by uri (H16).
    """

    kind: OutcomeKind
    started_at: int
    ended_at: int
    error: str | None = None
    retryable: bool = True
    retry_delay_us: int | None = None
    skip: list[str] = []
    xcoms: list[XComWrite] = []
    defer: DeferSpec | None = None
    run_us: int = 0
    exit_code: int | None = None
    map_name: str | None = None
    callback_errors: int = 0
    assets: dict[str, msgspec.Raw] = {}
