"""Events of assets that nobody needs any more (H16).

An event is needed while no scheduler has taken it up, while a DAG still waits with it for others,
and by the run that was made for it: until that has ended, and as long again as events are kept, so
that it may be cleared. The newest event of each asset stays, for it says when that was last made.

What a watcher has seen under a key is stored once, however often it comes (D13): while a DAG asks
for that watcher the row stays, without its ``extra``, and keeps an old file from starting a run.
"""

from __future__ import annotations

from roost.models.engine import Sql, Tx

__all__ = ["age"]

_LAST = Sql(
    "SELECT p.id, p.at <= {now} - CAST(:keep_us AS bigint) AS old FROM (SELECT id, at "
    "FROM asset_event WHERE id > :after ORDER BY id LIMIT :batch) AS p ORDER BY p.id DESC LIMIT 1"
)
_KEYED = (
    "e.ref IS NOT NULL AND substr(e.ref, 1, 4) = 'key ' AND EXISTS (SELECT 1 "
    "FROM asset_watcher w WHERE w.uri = e.uri AND w.name = e.watcher)"
)
_OLD = (
    "id IN (SELECT e.id FROM asset_event e WHERE e.id > :after AND e.id <= :last AND e.settled "
    "AND e.at <= {{now}} - CAST(:keep_us AS bigint) "
    "AND e.id < (SELECT max(m.id) FROM asset_event m WHERE m.uri = e.uri) "
    "AND NOT EXISTS (SELECT 1 FROM asset_pending p WHERE p.event_id = e.id) "
    "AND NOT EXISTS (SELECT 1 FROM asset_use u JOIN dag_run r ON r.id = u.dag_run_id "
    "WHERE u.event_id = e.id AND (r.end_date IS NULL "
    "OR r.end_date > {{now}} - CAST(:keep_us AS bigint))) AND {which} {{skip_locked}})"
)
_DELETE = Sql(f"DELETE FROM asset_event WHERE {_OLD.format(which=f'NOT ({_KEYED})')} RETURNING id")
_UNUSE = Sql("DELETE FROM asset_use WHERE event_id IN (SELECT r.id FROM {rows:r | id bigint})")
_BARE = Sql(
    f"UPDATE asset_event SET extra = '{{}}' WHERE extra <> '{{}}' AND {_OLD.format(which=_KEYED)}"
)


def age(tx: Tx, keep_us: int, after: int, batch: int) -> tuple[int, int | None]:
    """Delete what nobody needs among so many events, in order of their ids.

    Args:
        tx: the transaction.
        keep_us: how long events are kept, and runs may be cleared that were made for them.
        after: only behind this id.
        batch: how many events are looked at.

    Returns:
        How many were deleted or lost their ``extra``; and where to go on, None: all were seen.
    """
    last = tx.first(_LAST, keep_us=keep_us, after=after, batch=batch)
    if last is None:
        return 0, None
    these = {"keep_us": keep_us, "after": after, "last": last.id}
    gone = tx.all(_DELETE, **these)
    if gone:
        tx.run(_UNUSE, rows=tx.rows([{"id": row.id} for row in gone]))
    bared = tx.run(_BARE, **these)
    return len(gone) + bared, last.id if last.old else None
