"""What a task asks its supervisor, and the answers.

One request, one Reply, in order, on the task's own line: the supervisor knows from the line which
task instance and dispatch is asking. Frames and values are those of :mod:`roost.support.wire`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from roost.support.mail import Smtp
from roost.support.wire import Outcome

__all__ = [
    "AssetEvent",
    "AssetEventsGet",
    "CallbackUrl",
    "ConnectionGet",
    "ConnectionRecord",
    "DagRecord",
    "Finished",
    "MailSettings",
    "OnExists",
    "PreviousRun",
    "Reply",
    "Request",
    "RunCreate",
    "RunRecord",
    "RunStates",
    "TaskMessage",
    "VariableDelete",
    "VariableGet",
    "VariableSet",
    "XComPull",
    "XComPush",
]

OnExists = Literal["leave", "restart", "restart_failed", "resume_failed"]


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
    """The last message of a task; not answered.

    Attributes:
        outcome: how it ended.
        stays: its process may be given another task, and ends when its line is closed instead.
    """

    outcome: Outcome
    stays: bool = False


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
