"""Timers that are due: one statement stores the events of many.

``fired_at`` takes a timer out of the partial index that the statement goes by, so what waits far
ahead costs it nothing.
"""

from __future__ import annotations

from roost.models.engine import Sql, Tx

__all__ = ["fire_timers"]

# The moment as DateTimeTrigger yields it, in roost.support.typedjson, made without a row of Python.
_MOMENT_POSTGRES = (
    "to_char(timestamp '1970-01-01' + due_at * interval '1 microsecond', "
    "'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
)
# Rounded down by hand: SQLite divides towards zero, and a moment may lie before 1970.
_MICROS_SQLITE = "((due_at % 1000000) + 1000000) % 1000000"
_MOMENT_SQLITE = (
    f"strftime('%Y-%m-%dT%H:%M:%S', (due_at - {_MICROS_SQLITE}) / 1000000, 'unixepoch') "
    f"|| printf('.%06d', {_MICROS_SQLITE})"
)
_PAYLOAD = '\'{{"$roost":"datetime","value":"\' || {moment} || \'+00:00"}}\''
_DUE = (
    "SELECT id, epoch, due_at, next_method FROM trigger "
    "WHERE lane = 'timer' AND fired_at IS NULL AND due_at <= :now "
    "ORDER BY due_at LIMIT :batch"
)
# Where there is no method to come back to, the moment ends the task (D11).
_INSERT_DUE = (
    "INSERT INTO trigger_event (trigger_id, epoch, kind, payload, created_at) "
    "SELECT id, epoch, CASE WHEN next_method IS NULL THEN 'end_success' ELSE 'fired' END, "
    "{payload}, :now FROM due WHERE {{true}} "
    "ON CONFLICT (trigger_id) DO NOTHING RETURNING trigger_id"
)
# Locked rows are another triggerer's batch or being settled: skip them, both fire at full speed.
_FIRE_POSTGRES = Sql(
    f"WITH due AS MATERIALIZED ({_DUE} FOR UPDATE SKIP LOCKED), "
    "marked AS (UPDATE trigger SET fired_at = :now FROM due WHERE trigger.id = due.id) "
    + _INSERT_DUE.format(payload=_PAYLOAD.format(moment=_MOMENT_POSTGRES))
)
# SQLite has no writes inside WITH; its writer is alone, so the same rows are due twice.
_FIRE_SQLITE = Sql(
    f"WITH due AS MATERIALIZED ({_DUE}) "
    + _INSERT_DUE.format(payload=_PAYLOAD.format(moment=_MOMENT_SQLITE))
)
_MARK_SQLITE = Sql(
    "UPDATE trigger SET fired_at = :now "
    f"WHERE id IN (SELECT id FROM ({_DUE})) "
    "AND EXISTS (SELECT 1 FROM trigger_event e WHERE e.trigger_id = trigger.id)"
)


def fire_timers(tx: Tx, now: int, batch: int) -> int:
    """Store the event of up to ``batch`` timers that are due at ``now``; gives how many.

    Set-based: the cost of a timer is its rows. Safe in any number of triggerers at once.
    """
    if tx.dialect == "postgresql":
        return len(tx.all(_FIRE_POSTGRES, now=now, batch=batch))
    fired = len(tx.all(_FIRE_SQLITE, now=now, batch=batch))
    tx.run(_MARK_SQLITE, now=now, batch=batch)
    return fired
