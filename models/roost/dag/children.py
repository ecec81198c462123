"""Runs that a task starts or looks at: what it asks its supervisor for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from roost.dag import runtime
from roost.exceptions import NotFound, RoostException
from roost.support import typedjson
from roost.support.clock import to_us
from roost.support.task_requests import RunCreate, RunRecord
from roost.support.user_settings import conf_overrides_params

if TYPE_CHECKING:
    from roost.dag.ti import TaskInstance

__all__ = ["microseconds", "own_run_id", "start_run", "state_names"]

_LONGEST_ID = 250
_TASK_STATES = frozenset(
    {
        *("none", "scheduled", "queued", "running", "success", "failed", "skipped"),
        *("upstream_failed", "up_for_retry", "deferred", "removed"),
    }
)


def own_run_id(ti: TaskInstance) -> str:
    """The id of the run that ``ti`` starts: the same in every try and after every loss."""
    index = f"[{ti.map_index}]" if ti.map_index >= 0 else ""
    name = f"triggered__{ti.dag_id}.{ti.task_id}{index}__{ti.run_id}"
    if len(name) <= _LONGEST_ID:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: _LONGEST_ID - 18]}__{digest}"


def start_run(request: RunCreate) -> tuple[str, RunRecord]:
    """Start a run; gives what was done (see RunCreate) and how the run is.

    Raises:
        NotFound: there is no such DAG.
        ParamError: its conf breaks the schema of a param of the DAG, or lacks a value.
        RoostException: it is paused, or the run cannot be made.
    """
    dag_id = request.dag_id
    reply = runtime.ask(request, f"run {request.run_id!r} of DAG {dag_id!r}")
    if reply.text == "check":
        # Here, not in the worker: whatever the schemas do, they do to this task alone.
        from roost.dag.param_check import check_conf  # late: many DAG files have no params

        conf: Any = typedjson.decode(request.conf)
        check_conf(reply.params, conf, overrides=conf_overrides_params())
        request = msgspec.structs.replace(request, checked=True)
        reply = runtime.ask(request, f"run {request.run_id!r} of DAG {dag_id!r}")
    if reply.text == "paused":
        raise RoostException(f"DAG {dag_id!r} is paused: `roost dags unpause {dag_id}`")
    if reply.text == "inactive":
        raise NotFound(f"DAG {dag_id!r} is no longer defined by its file; put it back first")
    if not reply.runs or reply.text is None:
        raise NotFound(f"there is no DAG {dag_id!r}; `roost dags list` shows those that there are")
    return reply.text, reply.runs[0]


def microseconds(name: str, moment: datetime | str) -> int:
    """A moment, or its ISO 8601 text, as microseconds; without a zone it is in UTC.

    Raises:
        RoostException: the text is no moment.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise RoostException(
                f"{name} {moment!r} is not ISO 8601, e.g. 2026-01-31T06:00:00+00:00"
            ) from None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def state_names(of: str, name: str, states: Iterable[str] | None) -> tuple[str, ...]:
    """States as plain names, each of them known.

    Raises:
        RoostException: one is not.
    """
    names = tuple(str(getattr(state, "value", state)) for state in states or ())
    for state in names:
        if state not in _TASK_STATES:
            known = ", ".join(sorted(_TASK_STATES))
            raise RoostException(f"{of}: {name} holds {state!r}; states are {known}")
    return names
