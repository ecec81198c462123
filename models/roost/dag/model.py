"""The serialized DAG: what a parser hands to the scheduler, schema-checked on arrival.

These structs are the contract between user code (executed only in a parser, task or runner
process) and the daemons, which decide on them alone. They hold structure and knobs, never code.
Durations are integers in microseconds; moments are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "EdgeError",
    "ParsedFile",
    "SerializedDag",
    "SerializedTask",
    "SerializedTimetable",
    "TriggerRule",
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
        kind: ``null``, ``once``, ``continuous``, ``cron`` or ``delta``.
        cron: the five- or six-field expression of a ``cron`` timetable.
        delta_us: the step of a ``delta`` timetable in microseconds.
        timezone: IANA name in which a cron is read.
        summary: what listings show, e.g. ``@daily`` or ``0 3 * * *``.
    """

    kind: Literal["null", "once", "continuous", "cron", "delta"]
    cron: str | None = None
    delta_us: Duration | None = None
    timezone: str = "UTC"
    summary: str = ""


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
    extra: dict[str, Any] = {}


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
    """

    code_hash: str
    source: str
    helpers: list[str]
    dags: list[SerializedDag]
    triggers: list[str]
    error: str | None = None
    warnings: list[str] = []
