"""Triggers that wait for runs of a DAG, and what those runs have come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from roost.models.engine import Sql, Tx
from roost.support.task_requests import RunRecord

__all__ = ["Fired", "Target", "Waiting", "fire", "runs_of", "waiting_after", "waiting_for"]

_SOURCE = "roost.triggers.runs:DagRunTrigger"


class Waiting(NamedTuple):
    """A trigger; ``kwargs`` is ``roost.dag.runwait.RunWait`` as JSON."""

    id: int
    dag_run_id: int
    kwargs: str


class Target(NamedTuple):
    """Runs to look at: that of an id or those of a logical date, with these tasks of them."""

    dag_id: str
    run_id: str | None = None
    logical_date: int | None = None
    task_ids: tuple[str, ...] = ()


class Fired(NamedTuple):
    """An event of a trigger: ``fired`` with a payload, or ``failed`` with an error."""

    id: int
    kind: str
    payload: str | None = None
    error: str | None = None


# The source tells them from those that wait for an event (see external.py); with it a partial
# index leads to them alone.
_WAITING = (
    "SELECT t.id, t.dag_run_id, t.kwargs FROM trigger t "
    f"WHERE t.fired_at IS NULL AND t.source = '{_SOURCE}' AND "
)
# By what is asked for, and not by that index: PostgreSQL, when it does not know yet how many wait,
# would hold each of them against each key.
_ASKED = _WAITING.replace("t.source", "t.source || ''")
_BY_KEY = Sql(
    _ASKED + "t.external_key IS NOT NULL "
    "AND t.external_key IN (SELECT r.key FROM {rows:r | key text})"
)
_BY_KEY_POSTGRES = Sql(_BY_KEY.source.replace("IN (SELECT", "= ANY (ARRAY(SELECT") + ")")
_BY_ID = Sql(_ASKED + "t.id IN (SELECT r.id FROM {rows:r | id bigint})")
_AFTER = Sql(_WAITING + "t.id > :after ORDER BY t.id LIMIT :limit")
_RUN = "SELECT r.id, r.dag_id, r.run_id, r.logical_date, r.state FROM "
_RUNS = Sql(
    _RUN + "{rows:w | dag_id text, run_id text} "
    "JOIN dag_run r ON r.dag_id = w.dag_id AND r.run_id = w.run_id "
    "UNION " + _RUN + "{rows:w | dag_id text, logical_date bigint} "
    "JOIN dag_run r ON r.dag_id = w.dag_id AND r.logical_date = w.logical_date"
)
_INSTANCES = Sql(
    "SELECT i.dag_run_id, i.task_id, i.state FROM {rows:w | run bigint, task_id text} "
    "JOIN task_instance i ON i.dag_run_id = w.run AND i.task_id = w.task_id ORDER BY i.id"
)
# Rows that are being settled or time out this very moment are passed over: a sweep comes again.
_FIRE = Sql(
    "WITH mine AS MATERIALIZED (SELECT t.id, t.epoch FROM trigger t WHERE t.fired_at IS NULL "
    "AND t.id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY t.id {skip_locked}) "
    "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, error, created_at) "
    "SELECT mine.id, mine.epoch, r.kind, r.payload, r.error, :now "
    "FROM {rows:r | id bigint, kind text, payload text, error text} "
    "JOIN mine ON mine.id = r.id WHERE {true} "
    "ON CONFLICT (trigger_id) DO NOTHING RETURNING trigger_id"
)
_MARK = Sql(
    "UPDATE trigger SET fired_at = :now WHERE id IN (SELECT r.id FROM {rows:r | id bigint})"
)


def waiting_for(tx: Tx, keys: Iterable[str], ids: Iterable[int]) -> list[Waiting]:
    """The triggers with one of these keys or ids that have no event."""
    found: list[Waiting] = []
    if by_key := [{"key": key} for key in keys]:
        sql = _BY_KEY_POSTGRES if tx.dialect == "postgresql" else _BY_KEY
        found += [Waiting._make(row) for row in tx.all(sql, rows=tx.rows(by_key))]
    if by_id := [{"id": id_} for id_ in ids]:
        found += [Waiting._make(row) for row in tx.all(_BY_ID, rows=tx.rows(by_id))]
    return found


def waiting_after(tx: Tx, after: int, limit: int) -> list[Waiting]:
    """Triggers without an event whose ids follow ``after``, in order."""
    return [Waiting._make(row) for row in tx.all(_AFTER, after=after, limit=limit)]


def runs_of(tx: Tx, targets: Sequence[Target]) -> dict[str, list[RunRecord]]:
    """The runs that these targets mean, by DAG, with the tasks that they name."""
    if not targets:
        return {}
    rows = [
        {"dag_id": t.dag_id, "run_id": t.run_id, "logical_date": t.logical_date} for t in targets
    ]
    found = {}
    records: dict[str, list[RunRecord]] = {}
    of_dag: dict[str, list[int]] = {}
    for row in tx.all(_RUNS, rows=tx.rows(rows)):
        record = RunRecord(row.run_id, row.state, row.logical_date, {})
        found[row.id] = record
        records.setdefault(row.dag_id, []).append(record)
        of_dag.setdefault(row.dag_id, []).append(row.id)
    wanted = {
        (key, task_id)
        for target in targets
        for task_id in target.task_ids
        for key in of_dag.get(target.dag_id, ())
        if _means(target, found[key])
    }
    if wanted:
        asked = tx.rows([{"run": key, "task_id": task_id} for key, task_id in sorted(wanted)])
        for row in tx.all(_INSTANCES, rows=asked):
            found[row.dag_run_id].tasks.setdefault(row.task_id, []).append(row.state)
    return records


def _means(target: Target, run: RunRecord) -> bool:
    if target.run_id is not None:
        return target.run_id == run.run_id
    return target.logical_date is not None and target.logical_date == run.logical_date


def fire(tx: Tx, events: Sequence[Fired], now: int) -> set[int]:
    """Write events; the first of each trigger wins. Gives the triggers that have one now."""
    if not events:
        return set()
    rows = tx.rows([event._asdict() for event in events])
    fired = {int(row.trigger_id) for row in tx.all(_FIRE, rows=rows, now=now)}
    if fired:
        tx.run(_MARK, now=now, rows=msgspec.json.encode([{"id": i} for i in fired]).decode())
    return fired
