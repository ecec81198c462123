"""The only writer of state: guarded moves, many rows a statement, one log row a move.

A move says from where: ``UPDATE … WHERE id = … AND state IN from [AND guard]``, and gives back
the rows that really moved. A lost race is an absent row, never an exception; callers act only on
what is returned.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.states import FINISHED, MOVES, RUN_MOVES, Event, RunEvent, RunState, State
from roost.support.storable import storable

__all__ = [
    "Moved",
    "NewRun",
    "Reason",
    "create_run",
    "create_task_instances",
    "move",
    "move_runs",
]

Reason = str | Mapping[int, str | None] | None
"""Why task instances move: all of them, or each by its id."""

# The type of each column that a move may set or be guarded by, as PostgreSQL spells it.
_TYPES = {
    "dispatch_id": "bigint",
    "trigger_id": "bigint",
    "next_method": "text",
    "next_kwargs": "text",
    "run_us": "bigint",
    "scheduled_at": "bigint",
    "queued_at": "bigint",
    "start_date": "bigint",
    "end_date": "bigint",
    "retry_at": "bigint",
    "hostname": "text",
    "try_number": "integer",
    "first_try": "integer",
    "losses": "integer",
}


class Moved(NamedTuple):
    """One task instance that moved, as it is now."""

    id: int
    dag_run_id: int
    task_id: str
    map_index: int
    version: int
    try_number: int
    dispatch_id: int | None
    trigger_id: int | None
    prev_state: str


_RETURNING = ", ".join(Moved._fields)
_LOG_COLUMNS = (
    "at, actor, event, dag_run_id, ti_id, ti_version, try_number, dispatch_id, trigger_id, "
    "from_state, to_state, reason"
)
_LOG_ROW_TYPES = (
    "event text, dag_run_id bigint, ti_id bigint, ti_version integer, try_number integer, "
    "dispatch_id bigint, trigger_id bigint, from_state text, to_state text"
)
_LOG_TEXT = (
    f"INSERT INTO event_log ({_LOG_COLUMNS}) "
    "SELECT {{now}}, :actor, event, dag_run_id, ti_id, ti_version, try_number, dispatch_id, "
    "trigger_id, from_state, to_state, {reason} FROM {{rows:r | " + _LOG_ROW_TYPES + "{more}}}"
)
_LOG = Sql(_LOG_TEXT.format(reason=":reason", more=""))
_LOG_EACH = Sql(_LOG_TEXT.format(reason="reason", more=", reason text"))


def move(
    tx: Tx,
    events: Event | tuple[Event, ...],
    rows: Sequence[Mapping[str, Any]],
    *,
    actor: str,
    sets: tuple[str, ...] = (),
    adds: tuple[str, ...] = (),
    guards: tuple[str, ...] = (),
    reason: Reason = None,
) -> list[Moved]:
    """Move task instances along one event, or along several at once (schedule, then enqueue).

    Args:
        tx: the transaction; the log rows are part of it.
        events: the event, or a path of events each of which starts where the former ends.
        rows: one mapping per task instance: ``id``, a value for each name in ``sets`` and
            ``adds``, and ``if_<name>`` for each name in ``guards``.
        actor: who moves, for the log, e.g. ``scheduler:4``.
        sets: columns to write together with the state.
        adds: columns to which the given value is added.
        guards: columns that must hold the given value for the row to move.
        reason: why, for the log: of all, or of each by its id.

    Returns:
        The rows that moved. A row that was not in a from-state, or failed a guard, is absent.
    """
    if not rows:
        return []
    path = (events,) if isinstance(events, Event) else events
    each = isinstance(reason, Mapping)
    why = reason if isinstance(reason, Mapping) else {}
    params = {"actor": actor, "reason": storable(reason) if isinstance(reason, str) else None}
    if tx.dialect == "postgresql":
        if each:
            rows = [{**row, "reason": _stored(why.get(row["id"]))} for row in rows]
        sql = _move_and_log_sql(path, sets, adds, guards, each)
        return [Moved._make(row) for row in tx.all(sql, rows=tx.rows(rows), **params)]
    sql = _move_sql(path, sets, adds, guards)
    moved = [Moved._make(row) for row in tx.all(sql, rows=tx.rows(rows))]
    if moved:
        log = [_log_row(path, step, row) for row in moved for step in range(len(path))]
        if each:
            log = [{**row, "reason": _stored(why.get(row["ti_id"]))} for row in log]
        tx.run(_LOG_EACH if each else _LOG, rows=tx.rows(log), **params)
    return moved


def _stored(reason: str | None) -> str | None:
    return reason and storable(reason)


def _log_row(path: tuple[Event, ...], step: int, row: Moved) -> dict[str, Any]:
    return {
        "event": path[step],
        "dag_run_id": row.dag_run_id,
        "ti_id": row.id,
        "ti_version": row.version - len(path) + 1 + step,
        "try_number": row.try_number,
        "dispatch_id": row.dispatch_id,
        "trigger_id": row.trigger_id,
        "from_state": row.prev_state if step == 0 else MOVES[path[step - 1]][1],
        "to_state": MOVES[path[step]][1],
    }


_Names = tuple[str, ...]
# What a deferral leaves for the method that it comes back to; a payload may be large, and secret.
_RESUME: _Names = ("next_method", "next_kwargs")


def _update_text(
    path: tuple[Event, ...], sets: _Names, adds: _Names, guards: _Names, more: _Names = ()
) -> str:
    for before, after in itertools.pairwise(path):
        if MOVES[before][1] not in MOVES[after][0]:
            raise ValueError(f"{after} cannot follow {before}")
    came_from = ", ".join(f"'{state}'" for state in sorted(MOVES[path[0]][0]))
    columns = ["id bigint"]
    columns += [f"{name} {_TYPES[name]}" for name in sets + adds]
    columns += [f"if_{name} {_TYPES[name]}" for name in guards]
    columns += [f"{name} text" for name in more]
    assignments = "".join(f", {name} = r.{name}" for name in sets)
    assignments += "".join(f", {name} = t.{name} + r.{name}" for name in adds)
    if MOVES[path[-1]][1] in FINISHED | {State.UP_FOR_RETRY}:  # nobody comes back to it (D3)
        assignments += "".join(f", {name} = NULL" for name in _RESUME if name not in sets)
    conditions = "".join(f" AND t.{name} = r.if_{name}" for name in guards)
    returning = ", ".join([*(f"t.{n}" for n in Moved._fields), *(f"r.{n}" for n in more)])
    return (
        f"UPDATE task_instance AS t SET state = '{MOVES[path[-1]][1]}', "
        f"prev_state = t.state, version = t.version + {len(path)}{assignments} "
        f"FROM {{rows:r | {', '.join(columns)}}} "
        f"WHERE t.id = r.id AND t.state IN ({came_from}){conditions} RETURNING {returning}"
    )


@functools.cache
def _move_sql(path: tuple[Event, ...], sets: _Names, adds: _Names, guards: _Names) -> Sql:
    # SQLite names the columns of RETURNING by the table itself, not by its alias.
    text = _update_text(path, sets, adds, guards)
    return Sql(text.rsplit(" RETURNING ", 1)[0] + f" RETURNING {_RETURNING}")


@functools.cache
def _move_and_log_sql(
    path: tuple[Event, ...], sets: _Names, adds: _Names, guards: _Names, each: bool
) -> Sql:
    """The move and its log rows as one statement, which saves PostgreSQL a round trip."""
    more, reason = (("reason",), "reason") if each else ((), "CAST(:reason AS text)")
    logs = []
    for step, event in enumerate(path):
        origin = "prev_state" if step == 0 else f"'{MOVES[path[step - 1]][1]}'"
        logs.append(
            f"SELECT {{now}}, CAST(:actor AS text), '{event}', dag_run_id, id, "
            f"version - {len(path) - 1 - step}, try_number, dispatch_id, trigger_id, {origin}, "
            f"'{MOVES[event][1]}', {reason} FROM moved"
        )
    return Sql(
        f"WITH moved AS ({_update_text(path, sets, adds, guards, more)}), "
        f"logged AS (INSERT INTO event_log ({_LOG_COLUMNS}) {' UNION ALL '.join(logs)}) "
        f"SELECT {_RETURNING} FROM moved"
    )


class NewRun(NamedTuple):
    """A run to create, in state queued. Moments are microseconds since the epoch, UTC."""

    dag_id: str
    run_id: str
    run_type: str
    version_id: int
    logical_date: int | None
    interval_start: int | None
    interval_end: int | None
    run_after: int
    conf: str = "{}"
    backfill_id: int | None = None


_CREATE_RUN = Sql(
    "INSERT INTO dag_run (dag_id, run_id, run_type, state, version_id, logical_date, "
    "interval_start, interval_end, run_after, queued_at, conf, backfill_id) "
    f"VALUES (:dag_id, :run_id, :run_type, '{RunState.QUEUED}', :version_id, :logical_date, "
    ":interval_start, :interval_end, :run_after, {now}, :conf, :backfill_id) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
_CREATE_TASKS = Sql(
    "INSERT INTO task_instance "
    "(dag_run_id, task_id, map_index, state, pool, pool_slots, queue, priority_weight) "
    "SELECT r.dag_run_id, r.task_id, r.map_index, "
    f"'{State.NONE}', r.pool, r.pool_slots, r.queue, r.priority_weight "
    "FROM {rows:r | dag_run_id bigint, task_id text, map_index integer, pool text, "
    "pool_slots integer, queue text, priority_weight integer} "
    "WHERE {true} ON CONFLICT DO NOTHING RETURNING id, dag_run_id, task_id, map_index"
)
_LOG_RUN = Sql(
    "INSERT INTO event_log (at, actor, event, dag_run_id, from_state, to_state, reason) "
    "VALUES ({now}, :actor, :event, :dag_run_id, :from_state, :to_state, :reason)"
)


def create_run(tx: Tx, run: NewRun, *, actor: str) -> int | None:
    """Create a run in state queued.

    Returns:
        Its key, or None when the run id, or a scheduled run of that interval, exists (S12).
    """
    run_key = tx.scalar(_CREATE_RUN, **run._asdict())
    if run_key is None:
        return None
    tx.run(
        _LOG_RUN,
        actor=actor,
        event="create",
        dag_run_id=run_key,
        from_state=None,
        to_state=RunState.QUEUED,
        reason=run.run_type,
    )
    return int(run_key)


def create_task_instances(
    tx: Tx, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int, str, int]]:
    """Create task instances in state none.

    Args:
        tx: the transaction.
        rows: ``dag_run_id``, ``task_id``, ``map_index``, ``pool``, ``pool_slots``, ``queue`` and
            ``priority_weight`` each.

    Returns:
        ``(id, dag_run_id, task_id, map_index)`` of those that did not exist before.
    """
    created = tx.all(_CREATE_TASKS, rows=tx.rows(rows))
    return [(row.id, row.dag_run_id, row.task_id, row.map_index) for row in created]


_RUN_STATES = Sql(
    "SELECT id, state FROM dag_run WHERE id IN (SELECT r.run FROM {rows:r | run bigint}) "
    "ORDER BY id {for_update}"
)
_STAMPS = {
    RunEvent.START: "start_date = {now}",
    # Whoever had it has forgotten it: any scheduler may take it up.
    RunEvent.CLEAR: "start_date = NULL, end_date = NULL, queued_at = {now}, job_id = NULL, "
    "changed = {false}, wish = NULL",
}
# A scheduler's own moves: what it remembers of a run that others edited is void.
_DECIDED = frozenset({RunEvent.START, RunEvent.SUCCEED, RunEvent.FAIL})


@functools.cache
def _move_runs_sql(event: RunEvent) -> Sql:
    origins, target = RUN_MOVES[event]
    came_from = ", ".join(f"'{state}'" for state in sorted(origins))
    stamp = _STAMPS.get(event, "end_date = {now}")
    unedited = " AND NOT t.changed" if event in _DECIDED else ""
    return Sql(
        f"UPDATE dag_run AS t SET state = '{target}', {stamp} FROM {{rows:r | run bigint}} "
        f"WHERE t.id = r.run AND t.state IN ({came_from}){unedited} RETURNING id, start_date"
    )


def move_runs(
    tx: Tx, event: RunEvent, run_keys: Sequence[int], *, actor: str, reason: str | None = None
) -> list[int]:
    """Move runs along one event; gives the keys of those that moved.

    A run that others edited and its scheduler has not read again does not move by a decision.
    """
    if not run_keys:
        return []
    rows = tx.rows([{"run": run_key} for run_key in run_keys])
    before: dict[int, str] = {}
    if event not in _DECIDED:
        before = {row.id: row.state for row in tx.all(_RUN_STATES, rows=rows)}
    moved = tx.all(_move_runs_sql(event), rows=rows)
    if moved:
        log = [
            {
                "event": event,
                "dag_run_id": row.id,
                "from_state": before.get(row.id) or _decided_from(event, row),
                "to_state": RUN_MOVES[event][1],
            }
            for row in moved
        ]
        tx.run(_LOG, rows=tx.rows(log), actor=actor, reason=reason and storable(reason))
    return [int(row.id) for row in moved]


def _decided_from(event: RunEvent, row: Any) -> RunState:
    was_queued = event is RunEvent.START or row.start_date is None
    return RunState.QUEUED if was_queued else RunState.RUNNING
