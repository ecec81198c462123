"""What others left for the scheduler: outcomes of dispatches and events of triggers.

Both are durable rows that stay until the scheduler has settled them in the same transaction as
the moves that they cause, so nothing is lost by a crash and nothing is settled twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "EndedDispatch",
    "FiredTrigger",
    "NewTrigger",
    "clear_xcoms",
    "create_triggers",
    "delete_triggers",
    "end_unclaimed_wishes",
    "fired_triggers",
    "lock_triggers",
    "take_ended_dispatches",
]


class EndedDispatch(NamedTuple):
    """A dispatch that a worker ended: its outcome is ``roost.support.wire.Outcome`` as JSON.

    Of a callback (H23) ``callback`` is set, ``ti_id`` is 0 and ``try_number`` is how often it was
    handed over.
    """

    id: int
    ti_id: int
    dag_run_id: int
    outcome: str
    wish: str | None = None
    callback: str | None = None
    try_number: int = 0
    queue: str = ""


class FiredTrigger(NamedTuple):
    """A trigger with an event: ``fired`` with a payload, ``failed`` or ``timeout`` with a text, or
    ``end_…`` with how its task ends (D11); ``xcoms`` is a list of ``XComWrite`` as JSON; ``size``
    is the bytes of all its texts."""

    id: int
    ti_id: int
    dag_run_id: int
    kind: str
    payload: str | None
    error: str | None
    next_method: str | None
    next_kwargs: str
    xcoms: str | None = None
    size: int = 0


class NewTrigger(NamedTuple):
    """A trigger row to write for a task instance that defers (D2)."""

    ti_id: int
    dag_run_id: int
    dispatch_id: int
    lane: str
    classpath: str
    source: str
    kwargs: str
    next_method: str | None
    next_kwargs: str
    code_hash: str
    fileloc: str
    queue: str
    due_at: int | None
    timeout_at: int | None
    external_key: str | None
    on_timeout: str = "retry"
    rank: int = 0
    start: str | None = None


# Runs marked as changed are read again first: what their rows meant may have changed with them.
# A callback is anybody's, for its run may have ended, and its scheduler with it. It is taken once:
# of two schedulers the later one finds the row settled.
_TAKE_ENDED = Sql(
    # Said so that PostgreSQL does not walk the inbox once for each row that is to be taken.
    "UPDATE dispatch SET settled = {true} WHERE settled IS NOT TRUE AND id IN ("
    "SELECT d.id FROM dispatch d LEFT JOIN dag_run r ON r.id = d.dag_run_id "
    "WHERE d.ended_at IS NOT NULL AND NOT d.settled "
    "AND (d.ti_id IS NULL OR (r.job_id = :me AND NOT r.changed)) "
    "ORDER BY d.id LIMIT :limit) "
    "RETURNING id, COALESCE(ti_id, 0), dag_run_id, outcome, wish, callback, try_number, queue"
)
# Of what no worker has claimed nothing runs: it may end at once. A claim that comes first wins.
_END_UNCLAIMED = Sql(
    "UPDATE dispatch SET ended_at = {now}, outcome = :outcome WHERE id IN ("
    "SELECT d.id FROM dispatch d JOIN dag_run r ON r.id = d.dag_run_id "
    "WHERE d.wish IS NOT NULL AND d.ended_at IS NULL AND r.job_id = :me) "
    "AND job_id IS NULL AND ended_at IS NULL"
)
_FIRED = (
    "SELECT t.id, t.ti_id, t.dag_run_id, e.kind, e.payload, e.error, t.next_method, t.next_kwargs, "
    "e.xcoms, {size} AS size{more} "
    "FROM trigger_event e JOIN trigger t ON t.id = e.trigger_id "
    "JOIN dag_run r ON r.id = t.dag_run_id WHERE r.job_id = :me AND NOT r.changed "
    "ORDER BY e.id LIMIT :limit"
)


def _size(length: str) -> str:
    texts = ("e.payload", "e.error", "t.next_kwargs", "e.xcoms")
    return " + ".join(f"COALESCE({length.format(text)}, 0)" for text in texts)


# PostgreSQL sends all that it finds, so it must find no more than is wanted. It knows how long a
# large text is without reading it.
_FIRED_POSTGRES = Sql(
    f"SELECT {', '.join(FiredTrigger._fields)} FROM (SELECT f.*, "
    "sum(size) OVER (ORDER BY event_id ROWS UNBOUNDED PRECEDING) - size AS before FROM ("
    + _FIRED.format(size=_size("octet_length({})"), more=", e.id AS event_id")
    + ") f) g WHERE before < :most_bytes ORDER BY event_id"
)
_FIRED_SQLITE = Sql(_FIRED.format(size=_size("length(CAST({} AS BLOB))"), more=""))
_COLUMNS = (
    "ti_id, dag_run_id, dispatch_id, lane, classpath, source, kwargs, next_method, next_kwargs, "
    "code_hash, fileloc, queue, due_at, timeout_at, external_key, on_timeout, rank, start"
)
_CREATE = Sql(
    f"INSERT INTO trigger ({_COLUMNS}, created_at) SELECT {_COLUMNS}, {{now}} FROM "
    "{rows:r | ti_id bigint, dag_run_id bigint, dispatch_id bigint, lane text, classpath text, "
    "source text, kwargs text, next_method text, next_kwargs text, code_hash text, fileloc text, "
    "queue text, due_at bigint, timeout_at bigint, external_key text, "
    "on_timeout text, rank bigint, start text} "
    "WHERE {true} ON CONFLICT (ti_id) DO NOTHING RETURNING ti_id, id"
)
_LOCK_TRIGGERS = Sql(
    "SELECT t.id, t.fired_at FROM trigger t "
    "WHERE t.id IN (SELECT r.id FROM {rows:r | id bigint}) ORDER BY t.id {for_update:t}"
)
_DELETE = Sql("DELETE FROM trigger WHERE id IN (SELECT r.id FROM {rows:r | id bigint})")
_CLEAR_XCOMS = Sql("DELETE FROM xcom WHERE ti_id IN (SELECT r.id FROM {rows:r | id bigint})")


def end_unclaimed_wishes(tx: Tx, job_id: int, outcome: str) -> int:
    """End the dispatches in this scheduler's runs of which a user wants something else and that
    no worker has; gives how many. They are in the inbox then, like those that workers ended."""
    return tx.run(_END_UNCLAIMED, me=job_id, outcome=outcome)


def take_ended_dispatches(tx: Tx, job_id: int, limit: int) -> list[EndedDispatch]:
    """Take outcomes in the runs of this scheduler, and those of callbacks, out of the inbox.

    Oldest hand-off first.
    """
    taken = tx.all(_TAKE_ENDED, me=job_id, limit=limit)
    return sorted((EndedDispatch._make(row) for row in taken), key=lambda one: one.id)


def fired_triggers(
    tx: Tx, job_id: int, limit: int, most_bytes: int
) -> tuple[list[FiredTrigger], bool]:
    """Events of triggers in the runs of this scheduler, oldest first.

    Args:
        tx: the transaction.
        job_id: the scheduler.
        limit: at most this many.
        most_bytes: of these texts: the event that reaches it is the last one. So there is always
            one, however large.

    Returns:
        The events, and whether they have so many bytes that there may be more.
    """
    params = {"me": job_id, "limit": limit}
    if tx.dialect == "postgresql":
        rows = tx.each(_FIRED_POSTGRES, **params, most_bytes=most_bytes)
    else:
        rows = tx.each(_FIRED_SQLITE, **params)
    found: list[FiredTrigger] = []
    size = 0
    with contextlib.closing(rows):
        for row in rows:
            found.append(FiredTrigger._make(row))
            size += row.size
            if size >= most_bytes:
                break
    return found, size >= most_bytes


def create_triggers(tx: Tx, triggers: Sequence[NewTrigger]) -> dict[int, int]:
    """Write trigger rows; gives the trigger's id by task instance."""
    if not triggers:
        return {}
    rows: list[dict[str, Any]] = [trigger._asdict() for trigger in triggers]
    return {row.ti_id: row.id for row in tx.all(_CREATE, rows=tx.rows(rows))}


def lock_triggers(tx: Tx, trigger_ids: Sequence[int]) -> dict[int, bool]:
    """Whether triggers have an event, by id, and that stays so while this transaction lasts.

    Those that are gone are absent.
    """
    rows = tx.all(_LOCK_TRIGGERS, rows=_ids(tx, trigger_ids)) if trigger_ids else ()
    return {row.id: row.fired_at is not None for row in rows}


def delete_triggers(tx: Tx, ids: Sequence[int]) -> None:
    """Remove triggers that did their part, and their events with them."""
    if ids:
        tx.run(_DELETE, rows=_ids(tx, ids))


def clear_xcoms(tx: Tx, ti_ids: Sequence[int]) -> None:
    """Forget what a failed try pushed: the next one starts without it (S16)."""
    if ti_ids:
        tx.run(_CLEAR_XCOMS, rows=_ids(tx, ti_ids))


def _ids(tx: Tx, ids: Sequence[int]) -> str:
    return tx.rows([{"id": id_} for id_ in ids])
