"""SLAs: note what was missed, and have somebody told, once for each miss (S100-S105).

A run of a schedule should have its task done within ``sla`` of the end of its data interval. Every
scheduler looks; a primary key makes a miss one row, and a guarded update tells of it once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Engine

from roost.dag.model import SerializedDag
from roost.models.engine import Tx, read, transact
from roost.models.queries import handoffs, slas
from roost.models.queries.handoffs import Handoff
from roost.models.queries.slas import Miss
from roost.scheduler.turn import DEFAULT_QUEUE, FIRST
from roost.support.clock import now_us
from roost.support.wire import CallbackSpec

__all__ = ["SlaWatch"]

log = logging.getLogger("roost.scheduler")
_MOST_BLOCKING = 1000
_NO_SCHEDULE = ("null", "once", "continuous")


class _Watched(NamedTuple):
    """What a version of a DAG asks for."""

    slas: dict[str, int]
    mailed: frozenset[str]
    has_callback: bool


class SlaWatch:
    """Looks for SLA misses. Keeps in memory only which versions of DAGs have an ``sla``.

    Args:
        engine: the metadata database.
        clock: the wall clock in microseconds.
    """

    def __init__(self, engine: Engine, clock: Callable[[], int] = now_us) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[int, _Watched | None] = {}

    def look(self) -> list[Handoff]:
        """Note new misses and hand over who is to be told; gives the dispatches."""
        with read(self._engine) as tx:
            active = slas.active_versions(tx)
            unknown = [id_ for id_ in active.values() if id_ not in self._known]
            found = slas.versions_with_sla(tx, unknown) if unknown else {}
        known = {id_: self._known.get(id_) for id_ in active.values()}
        known |= {id_: _watched(data) for id_, data in found.items()}
        self._known = known
        told: list[Handoff] = []
        for dag_id, version_id in active.items():
            watched = known[version_id]
            if watched is not None:
                told += transact(self._engine, _step(dag_id, watched, self._clock()))
        return told


def _watched(data: str) -> _Watched | None:
    dag = msgspec.json.decode(data, type=SerializedDag)
    with_sla = [task for task in dag.tasks if task.sla_us is not None]
    if dag.timetable.kind in _NO_SCHEDULE or not with_sla:
        return None
    return _Watched(
        {task.task_id: task.sla_us or 0 for task in with_sla},
        frozenset(task.task_id for task in with_sla if task.email),
        "sla_miss" in dag.callbacks,
    )


def _step(dag_id: str, watched: _Watched, now: int) -> Callable[[Tx], list[Handoff]]:
    def step(tx: Tx) -> list[Handoff]:
        missed = slas.note_misses(tx, dag_id, watched.slas, now)
        if missed:
            log.warning("DAG %s: %d tasks missed their sla", dag_id, missed)
        if not watched.has_callback and not watched.mailed:
            return []
        misses = slas.claim_untold(tx, dag_id, watched.mailed)
        return _tell(tx, misses, watched) if misses else []

    return step


def _tell(tx: Tx, misses: list[Miss], watched: _Watched) -> list[Handoff]:
    names = []
    if watched.has_callback:
        names.append("sla_miss")
    if any(miss.task_id in watched.mailed for miss in misses):
        names.append("email")
    if not names:
        return []
    detail = msgspec.json.encode(_detail(tx, misses))
    first = handoffs.allocate_ids(tx, "dispatch", len(names))
    made = []
    for number, name in enumerate(names):
        spec = CallbackSpec(
            kind="sla", name=name, reason=f"{len(misses)} missed", detail=msgspec.Raw(detail)
        )
        body = msgspec.json.encode(spec).decode()
        key = misses[-1].dag_run_id
        made.append(Handoff(first + number, None, key, 1, DEFAULT_QUEUE, FIRST, body))
    handoffs.create_dispatches(tx, made)
    return made


def _detail(tx: Tx, misses: list[Miss]) -> dict[str, Any]:
    found = slas.blocking(tx, [miss.dag_run_id for miss in misses], _MOST_BLOCKING)
    return {
        "missed": [[miss.task_id, miss.logical_date, miss.timestamp] for miss in misses],
        "blocking": [list(one) for one in found],
    }
