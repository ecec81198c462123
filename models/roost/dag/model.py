"""The serialized DAG: what a parser hands to the scheduler, schema-checked on arrival.

These structs are the contract between user code (executed only in a parser, task or runner
process) and the daemons, which decide on them alone. They hold structure and knobs, never code.
Durations are integers in microseconds; moments are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from roost.support.wire import OnTimeout

__all__ = [
    "AssetCondition",
    "CallbackName",
    "DagCallbackName",
    "EdgeError",
    "Length",
    "ParsedFile",
    "SerializedDag",
    "SerializedDeadline",
    "SerializedExpand",
    "SerializedStart",
    "SerializedTask",
    "SerializedTimetable",
    "TriggerRule",
    "Upcoming",
    "WeightRule",
]

TriggerRule = Literal[
    "all_success",
    "all_failed",
    "all_done",
    "all_skipped",
    "one_failed",
    "one_success",
    "one_done",
    "none_failed",
    "none_skipped",
    "none_failed_min_one_success",
    "all_done_min_one_success",
    "all_done_setup_success",
    "always",
]
WeightRule = Literal["downstream", "upstream", "absolute"]
CallbackName = Literal["on_execute", "on_success", "on_failure", "on_retry", "on_skipped"]
DagCallbackName = Literal["on_success", "on_failure", "sla_miss"]

# What the columns hold. A value outside is the file's import error, not the scheduler's crash.
Name = Annotated[str, msgspec.Meta(max_length=250, pattern=r"^[^\x00]*$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Tries = Annotated[int, msgspec.Meta(ge=0, le=2**15 - 2)]
Duration = Annotated[int, msgspec.Meta(ge=0, le=2**60)]


class EdgeError(ValueError):
    """A serialized DAG names a task that it does not hold, or has a cycle."""


class SerializedTimetable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a DAG runs. ``kind`` names a timetable of :mod:`roost.dag.timetable`.

    Attributes:
        kind: ``null``, ``once``, ``continuous``; ``cron`` and ``delta`` have data intervals from
            one moment to the next; ``cron_trigger``, ``delta_trigger`` and ``events`` run at a
            moment; ``custom`` is the user's own, and ``dag.upcoming`` holds what it said.
        cron: the five- or six-field expression of a ``cron`` timetable.
        crons: those of a ``cron_trigger``.
        delta_us: the step of a ``delta`` or ``delta_trigger`` in microseconds.
        interval_us: how much time before its moment a run of a trigger covers.
        moments: those of ``events``, ascending.
        restrict_to_events: a manual run gets one of those moments, too.
        timezone: IANA name in which a cron is read.
        summary: what listings show, e.g. ``@daily`` or ``0 3 * * *``.
    """

    kind: Literal[
        "null", "once", "continuous", "cron", "delta", "cron_trigger", "delta_trigger", "events",
        "custom",
    ]  # fmt: skip
    cron: str | None = None
    crons: tuple[str, ...] = ()
    delta_us: Duration | None = None
    interval_us: Duration = 0
    moments: tuple[int, ...] = ()
    restrict_to_events: bool = False
    timezone: str = "UTC"
    summary: str = ""


class Length(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How many values one argument of a mapped task has, as far as structure tells (H17).

    Attributes:
        kind: ``literal`` (``count`` says it), ``xcom`` (as many as the XCom ``key`` of ``task_id``
            holds; of a mapped task: as many as its instances left), ``zip`` and ``concat`` of
            ``parts``. A mapped function (``.map``) is as long as what it is applied to.
        longest: a zip goes on to the end of its longest part.
    """

    kind: Literal["literal", "xcom", "zip", "concat"]
    count: Count = 0
    task_id: Name = ""
    key: str = "return_value"
    parts: list[Length] = []
    longest: bool = False


class SerializedExpand(msgspec.Struct, forbid_unknown_fields=True):
    """How a mapped task or group expands: into the product of the lengths of its factors.

    ``expand(x=…, y=…)`` has a factor for each argument, ``expand_kwargs`` one. The instance of
    ``map_index`` has, for the last factor, the value ``map_index % length``, and so on upwards.
    """

    factors: list[Length]


class SerializedDeadline(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A limit that a run must meet (H22): ``reference`` plus ``interval_us``, then a callback.

    ``fixed`` counts from ``at``; ``average`` adds nothing but the mean run time of past runs to
    the moment the run was queued. The callback is the DAG's deadline of the same position.
    """

    reference: Literal["logical_date", "queued_at", "fixed", "average"]
    interval_us: int = 0
    at: int | None = None
    name: str = ""


class AssetCondition(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which assets must have events before a run starts (H16): one, all of or any of ``parts``."""

    op: Literal["asset", "all", "any"]
    uri: Name = ""
    parts: list[AssetCondition] = []

    def words(self) -> str:
        """The condition as listings show it, e.g. ``(a & b) | c``."""
        if self.op == "asset":
            return self.uri
        sign = " & " if self.op == "all" else " | "
        return sign.join(f"({p.words()})" if p.parts else p.words() for p in self.parts)

    def uris(self) -> set[str]:
        """Every asset in it."""
        return {self.uri} if self.op == "asset" else {u for p in self.parts for u in p.uris()}


class SerializedStart(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The trigger that a task starts in, without a worker (D12).

    Attributes:
        classpath: as its author wrote it.
        source: ``module:qualname`` of the class.
        kwargs: its arguments, typed JSON; texts in them are templates that the runner renders.
        next_method: where the task goes on at its event; None: the trigger ends the task.
        next_kwargs: more arguments for that method, typed JSON.
        timeout_us: longest wait, from the start of the trigger (D6).
        on_timeout: what the task comes to then.
    """

    classpath: str
    source: str
    kwargs: dict[str, Any] = {}
    next_method: str | None = None
    next_kwargs: dict[str, Any] = {}
    timeout_us: Count | None = None
    on_timeout: OnTimeout = "retry"


class SerializedWatcher(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A watcher of an asset that the DAG waits for (D13).

    Attributes:
        uri: of the asset.
        classpath: of its trigger, as its author wrote it.
        source: ``module:qualname`` of the class.
        kwargs: its arguments, typed JSON.
    """

    uri: Name
    name: Name
    classpath: str
    source: str
    kwargs: dict[str, Any] = {}
    queue: Name = "default"


class SerializedTask(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One task of a DAG: its edges and every knob the scheduler or a worker decides by."""

    task_id: Name
    operator: str
    downstream: list[str] = []
    trigger_rule: TriggerRule = "all_success"
    owner: str = ""
    pool: Name = "default_pool"
    pool_slots: Count = 1
    queue: Name = "default"
    priority_weight: int = 1
    weight_rule: WeightRule = "downstream"
    retries: Tries = 0
    retry_delay_us: Duration = 300_000_000
    retry_exponential_backoff: bool = False
    max_retry_delay_us: Duration | None = None
    execution_timeout_us: Duration | None = None
    depends_on_past: bool = False
    wait_for_downstream: bool = False
    # An operator without a body (H27): the scheduler completes it without a dispatch.
    empty: bool = False
    # Computed by a weight strategy of the user's own (H24); None: by weight_rule.
    effective_weight: int | None = None
    # Each try multiplies the delay by this where retry_exponential_backoff is set (H13).
    retry_multiplier: float = 2.0
    max_active_tis_per_dag: Count | None = None
    max_active_tis_per_dagrun: Count | None = None
    # Not for logical dates before and after these.
    start_date: int | None = None
    end_date: int | None = None
    run_as_user: str | None = None
    # Which callbacks the task has; they run in a task process (H23).
    callbacks: list[CallbackName] = []
    email: list[str] = []
    email_on_failure: bool = True
    email_on_retry: bool = True
    sla_us: Duration | None = None
    setup: bool = False
    teardown: bool = False
    # Whether a failed teardown fails the run (H18).
    on_failure_fail_dagrun: bool = False
    expand: SerializedExpand | None = None
    # The mapped group that it expands with; its own ``expand`` is None then.
    mapped_group: Name | None = None
    # URIs of the assets that a success makes anew (H16).
    outlets: list[Name] = []
    # Its first stage is a trigger (D12).
    start: SerializedStart | None = None
    extra: dict[str, Any] = {}


class SerializedDag(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One DAG of a file. ``tasks`` is in topological order with every edge checked."""

    dag_id: Name
    timetable: SerializedTimetable
    tasks: list[SerializedTask]
    start_date: int | None = None
    end_date: int | None = None
    catchup: bool = False
    max_active_runs: Count = 16
    max_active_tasks: Count = 16
    dagrun_timeout_us: Duration | None = None
    is_paused_upon_creation: bool | None = None
    owners: list[str] = []
    tags: list[str] = []
    description: str = ""
    doc_md: str | None = None
    # Default values of params, typed JSON (roost.support.typedjson).
    params: dict[str, Any] = {}
    callbacks: list[DagCallbackName] = []
    fail_fast: bool = False
    max_consecutive_failed_dag_runs: Count = 0
    deadlines: list[SerializedDeadline] = []
    # By group id; the tasks inside name it as their ``mapped_group``.
    mapped_groups: dict[str, SerializedExpand] = {}
    # What it waits for besides moments (H16).
    assets: AssetCondition | None = None
    watchers: list[SerializedWatcher] = []
    extra: dict[str, Any] = {}


class Upcoming(msgspec.Struct, forbid_unknown_fields=True):
    """What a timetable of the user's own said comes next (H14).

    Attributes:
        runs: start and end of the data interval and run_after of each, ascending.
        ended: there is no run after the last of them.
        catchup: as of the DAG: without it what has passed is of no use.
    """

    runs: list[tuple[int, int, int]] = []
    ended: bool = False
    catchup: bool = False


class ParsedFile(msgspec.Struct, forbid_unknown_fields=True):
    """What a parser child prints about one DAG file.

    Attributes:
        code_hash: identity of the code: sha256 over the file and the helper modules below the
            DAGs folder that it imported.
        source: the text of the file, kept so that workers run exactly this version.
        helpers: paths (relative to the DAGs folder) of those helper modules.
        dags: the DAGs found in the module's globals (S5).
        triggers: ``module:qualname`` of every trigger class the file defines or imports; the
            registry that a runner checks before it imports anything.
        error: the traceback, when the file could not be imported; ``dags`` is empty then.
        warnings: one line each, shown in listings.
        upcoming: by dag_id, of the DAGs whose timetable is the user's own.
        texts: of the helper modules by module name, with their paths: what a trigger runner
            imports, so that a trigger ends on the code that it began with (D23).
    """

    code_hash: str
    source: str
    helpers: list[str]
    dags: list[SerializedDag]
    triggers: list[str]
    error: str | None = None
    warnings: list[str] = []
    upcoming: dict[str, Upcoming] = {}
    texts: dict[str, tuple[str, str]] = {}
