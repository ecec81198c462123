"""Messages between processes: supervisor and task, supervisor and trigger runner.

Frames are a four-byte big-endian length and a JSON body (msgspec). User values inside them are
``Raw`` typed JSON (:mod:`roost.support.typedjson`), validated by the process that made them and
passed on untouched. A field is never ``Raw | None``: msgspec can write that but not read it.
Durations are microseconds; moments microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from roost.support.mail import Smtp

__all__ = [
    "NOWHERE",
    "TRIGGER_TIMEOUT",
    "AssetEvent",
    "AssetEventsGet",
    "CallbackSpec",
    "CallbackUrl",
    "ConnectionGet",
    "ConnectionRecord",
    "DagRecord",
    "DeferSpec",
    "EndKind",
    "Finished",
    "MailSettings",
    "OnExists",
    "OnTimeout",
    "Outcome",
    "OutcomeKind",
    "PreviousRun",
    "Reply",
    "Request",
    "RunCreate",
    "RunRecord",
    "RunStates",
    "TaskMessage",
    "TaskSpec",
    "TriggerReport",
    "TriggerSpec",
    "VariableDelete",
    "VariableGet",
    "VariableSet",
    "XComPull",
    "XComPush",
    "XComWrite",
]

# What TaskSpec.trigger_error begins with when defer(timeout=…) ran out (D6); any other text is a
# failure of the trigger itself (D5).
TRIGGER_TIMEOUT = "Trigger timeout"

EndKind = Literal["end_success", "end_failed", "end_skipped"]
# D1: why a task fails whose trigger fired although nothing is to be called then.
NOWHERE = (
    "the trigger fired, but defer() named no method to come back to: name one, or let the trigger "
    "yield TaskSuccessEvent, TaskFailedEvent or TaskSkippedEvent"
)

OutcomeKind = Literal["success", "failed", "skipped", "deferred", "lost"]
OnTimeout = Literal["retry", "fail", "skip"]
OnExists = Literal["leave", "restart", "restart_failed", "resume_failed"]


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


class StartSpec(msgspec.Struct, omit_defaults=True):
    """What a trigger is made of that its task starts in (D12): kept with its row as it stands in
    the DAG file.

    Attributes:
        kwargs: its arguments, typed JSON; texts in them are templates.
        operator: the class of the task.
        max_tries: as in :class:`TaskSpec`.
        task: what templates see of the run; added for the runner, not kept.
    """

    kwargs: msgspec.Raw
    operator: str
    max_tries: int
    task: TaskSpec | None = None


class TriggerSpec(msgspec.Struct, omit_defaults=True):
    """One trigger to run, as the triggerer hands it to its runner child.

    Attributes:
        strikes: how often it has ended or blocked its runner; ``trouble`` tells the last time.
        start: set where its arguments are still to be rendered (D12).
        watcher: whose it is, in words; empty: it is a task's (D13).
    """

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
    strikes: int = 0
    trouble: str | None = None
    start: StartSpec | None = None
    error: str | None = None  # why it cannot be run
    watcher: str = ""

    @property
    def size(self) -> int:
        """Its values, in bytes."""
        size = len(bytes(self.kwargs))
        if self.start is not None:
            size += len(bytes(self.start.kwargs))
            size += 0 if self.start.task is None else len(bytes(self.start.task.conf))
        return size


class TriggerReport(msgspec.Struct, omit_defaults=True):
    """What became of a trigger: it fired with a payload, it failed, or it ended its task (D11).

    Attributes:
        error: why it failed; of an end, its reason.
        xcoms: what an end pushes for the task.
        waits: it is to be told when this is in the database.
        row: of kind ``row``: it waits as a row from now on, which this describes (D12).
    """

    trigger_id: int
    epoch: int
    kind: Literal["fired", "failed", "row"] | EndKind
    payload: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    waits: bool = False
    xcoms: list[XComWrite] = []
    row: DeferSpec | None = None

    @property
    def size(self) -> int:
        """Its values, in bytes or characters."""
        values = sum(len(bytes(one.value)) for one in self.xcoms)
        return len(bytes(self.payload)) + len(self.error or "") + values


# What a task asks its supervisor. One request, one Reply, in order, on the task's own line: the
# supervisor knows from the line which task instance and dispatch is asking.


class XComPull(msgspec.Struct, tag="xcom_pull"):
    """Read XComs (S56). Answered by ``Reply.values``, one entry for each of ``task_ids``.

    An entry is the most recent matching value, or ``null`` where nothing matched (S57). "Most
    recent" is by logical date of the run, then by the time of writing.

    Attributes:
        task_ids: whose values, answered in this order; None: whoever's, answered by one entry.
        key: None removes the filter.
        dag_id: None: the asking task's DAG.
        run_id: None: the asking task's run.
        map_index: None removes the filter.
        include_prior_dates: also look at earlier runs of ``dag_id``.
        element: only this element of each value (:func:`roost.support.elements.element_of`): a
            mapped instance need not be sent all that its siblings take (H17).
        gather: each entry is the list of what all instances of a mapped task left, by map_index
            and without those that left nothing; with ``element``, that element of the list.
        measure: each entry is a length instead, ``null`` of what has none; with ``gather``, how
            many instances left a value.
    """

    task_ids: list[str] | None = None
    key: str | None = "return_value"
    dag_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    include_prior_dates: bool = False
    element: int | None = None
    gather: bool = False
    measure: bool = False


class XComPush(msgspec.Struct, tag="xcom_push"):
    """Store a value at once, visible to other tasks when the Reply comes (S54)."""

    key: str
    value: msgspec.Raw  # typed JSON
    length: int | None = None  # of a list or dict


class VariableGet(msgspec.Struct, tag="variable_get"):
    """Read a Variable. Answered by ``Reply.text`` (None: there is none)."""

    key: str


class VariableSet(msgspec.Struct, tag="variable_set"):
    """Create or replace a Variable. ``description`` None keeps the one there is."""

    key: str
    value: str
    description: str | None = None


class VariableDelete(msgspec.Struct, tag="variable_delete"):
    """Delete a Variable. Answered by ``Reply.count``."""

    key: str


class ConnectionGet(msgspec.Struct, tag="connection_get"):
    """Read a Connection; among several of one id the supervisor picks at random (S47)."""

    conn_id: str


class ConnectionRecord(msgspec.Struct):
    """How to reach an external system (S46). ``extra`` is JSON text."""

    conn_id: str
    conn_type: str = ""
    host: str | None = None
    login: str | None = None
    password: str | None = None
    schema: str | None = None
    port: int | None = None
    extra: str | None = None
    description: str | None = None


class MailSettings(msgspec.Struct, tag="mail_settings"):
    """Ask which mail server there is. Answered by ``Reply.smtp``; no database is asked."""


class RunCreate(msgspec.Struct, tag="run_create"):
    """Start a run of a DAG, once for each try of the asking task however often it is asked.

    Answered by ``Reply.text`` and, for the first three, the run in ``Reply.runs``: ``created``
    (also by an earlier try of the same task instance), ``restarted``, or ``exists`` without this
    task's doing; ``unknown``, ``inactive`` or ``paused`` (the DAG is). Where a run would be made
    and the DAG has params, it is ``check``: hold ``conf`` against ``Reply.params`` and ask again.

    Attributes:
        dag_id: of which DAG.
        run_id: its id.
        logical_date: microseconds since the epoch; None: the moment it is created.
        interval_start: of its data interval; None: as for a run by hand.
        interval_end: likewise.
        run_type: how listings show it.
        conf: typed JSON object.
        on_exists: what to do about a run of that id: leave it, unless this task instance started
            it and it has failed; restart it when it has ended
            (``restart``), when it has failed (``restart_failed``), or only what failed in it
            (``resume_failed``).
        refuse_paused: start nothing while the DAG is paused.
        checked: ``conf`` was held against the DAG's params.
    """

    dag_id: str
    run_id: str
    logical_date: int | None = None
    interval_start: int | None = None
    interval_end: int | None = None
    run_type: str = "manual"
    conf: msgspec.Raw = msgspec.Raw(b"{}")
    on_exists: OnExists = "leave"
    refuse_paused: bool = False
    checked: bool = False


class RunStates(msgspec.Struct, tag="run_states"):
    """See how runs of a DAG are doing. Answered by ``Reply.runs`` and ``Reply.dag``.

    Attributes:
        dag_id: whose runs.
        run_id: the run of this id.
        logical_dates: the runs of these logical dates, in microseconds.
        task_ids: show these tasks of theirs, too.
        group_id: show the tasks of this group, too.
    """

    dag_id: str
    run_id: str | None = None
    logical_dates: list[int] = []
    task_ids: list[str] = []
    group_id: str | None = None


class PreviousRun(msgspec.Struct, tag="previous_run"):
    """The newest successful run of the DAG before the asking one; ``Reply.runs``, at most one."""


class RunRecord(msgspec.Struct, omit_defaults=True):
    """A run and the states of tasks in it, one for each instance of a task."""

    run_id: str
    state: str
    logical_date: int | None = None
    tasks: dict[str, list[str]] = {}
    interval_start: int | None = None
    interval_end: int | None = None
    start_date: int | None = None
    end_date: int | None = None


class DagRecord(msgspec.Struct, omit_defaults=True):
    """What the database knows of a DAG.

    Attributes:
        is_active: whether its file still defines it.
        task_ids: those of the tasks asked for that it has.
    """

    is_active: bool
    is_paused: bool
    task_ids: list[str] = []


class AssetEventsGet(msgspec.Struct, tag="asset_events_get"):
    """The events for which the asking task's run was made (H16). Answered by ``Reply.events``."""


class AssetEvent(msgspec.Struct, frozen=True):
    """One event of an asset; ``extra`` is typed JSON. All ids are None where a person made it."""

    uri: str
    timestamp: int
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int
    extra: msgspec.Raw


class CallbackUrl(msgspec.Struct, tag="callback_url"):
    """Sign a URL at which somebody can send one event of ``key``; answered by ``Reply.text``."""

    key: str
    life_us: int


class Finished(msgspec.Struct, tag="finished"):
    """The last message of a task process; not answered."""

    outcome: Outcome


class Reply(msgspec.Struct, omit_defaults=True):
    """The supervisor's answer. ``error`` is one line that the task raises."""

    error: str | None = None
    values: list[msgspec.Raw] = []
    text: str | None = None
    count: int = 0
    connection: ConnectionRecord | None = None
    runs: list[RunRecord] = []
    dag: DagRecord | None = None
    params: list[dict[str, Any]] = []
    smtp: Smtp | None = None
    events: list[AssetEvent] = []


Request = (
    XComPull
    | XComPush
    | VariableGet
    | VariableSet
    | VariableDelete
    | ConnectionGet
    | MailSettings
    | PreviousRun
    | RunCreate
    | RunStates
    | AssetEventsGet
    | CallbackUrl
)
TaskMessage = Request | Finished
