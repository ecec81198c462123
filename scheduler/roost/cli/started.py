"""The deferral of a task that starts in its trigger, for runs inside one process (D12)."""

from __future__ import annotations

import msgspec

from roost.dag.deferral import TaskDeferred, make_defer_spec
from roost.dag.failure import text_of
from roost.dag.loader import LoadedFile
from roost.dag.model import SerializedStart
from roost.dag.registry import resolve_trigger
from roost.dag.runtime import Supervisor, using
from roost.support.clock import now_us
from roost.support.trigger_wire import StartSpec
from roost.support.wire import Outcome, TaskSpec
from roost.triggerer.starting import render_start, row_of

__all__ = ["start_in_trigger"]


def start_in_trigger(
    start: SerializedStart | None, spec: TaskSpec, loaded: LoadedFile, supervisor: Supervisor
) -> Outcome | None:
    """What the first stage of a task comes to; None: its body is run, now or again.

    Args:
        start: how it starts, if it starts in its trigger.
        spec: its dispatch.
        loaded: its DAG file.
        supervisor: answers what templates ask.
    """
    if start is None or spec.next_method is not None or spec.trigger_error is not None:
        return None
    now = now_us()
    encoded = msgspec.Raw(msgspec.json.encode(start.kwargs))
    made_of = StartSpec(encoded, spec.operator, spec.max_tries, spec)
    try:
        with using(supervisor, None):
            kwargs = render_start(made_of, loaded.dags.get(spec.dag_id))
        trigger = resolve_trigger(start.source, loaded.triggers, loaded)(**kwargs)
        deferred = row_of(trigger) or make_defer_spec(
            TaskDeferred(trigger=trigger, method_name=start.next_method)
        )
    except Exception as error:
        return Outcome("failed", started_at=now, ended_at=now, error=text_of(error))
    deferred.next_method = deferred.next_method and start.next_method
    deferred.next_kwargs = msgspec.Raw(msgspec.json.encode(start.next_kwargs))
    deferred.timeout_us, deferred.on_timeout = start.timeout_us, start.on_timeout
    return Outcome("deferred", started_at=now, ended_at=now, defer=deferred)
