"""What the command line changes by itself: pauses and pools. States are changed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from roost.models.engine import Sql, Tx
from roost.models.queries import watchers

__all__ = ["delete_pool", "last_run_states", "lock_dags", "pause_dag", "set_pool"]

_PAUSE = Sql(
    "UPDATE dag SET is_paused = :paused, paused_reason = :reason, updated_at = {now} "
    "WHERE dag_id = :dag_id AND is_paused <> :paused"
)
_LOG_PAUSE = Sql(
    "INSERT INTO event_log (at, actor, event, reason) VALUES ({now}, :actor, :event, :reason)"
)
_LOCK_DAGS = Sql(
    "SELECT dag_id FROM dag WHERE dag_id IN (SELECT r.dag_id FROM {rows:r | dag_id text}) "
    "ORDER BY dag_id {for_update}"
)
_LAST_STATES = Sql(
    "SELECT state FROM dag_run WHERE dag_id = :dag_id AND end_date IS NOT NULL "
    "ORDER BY end_date DESC, id DESC LIMIT :limit"
)
_LOCK_POOL = Sql("SELECT deferred_percent, description FROM pool WHERE pool = :pool {for_update}")
# Counted anew, because deferred_percent decides what counts: slots of what is queued or runs,
# and a part of those of what is deferred or resumed and not yet running (H5).
_SET_POOL = Sql(
    "INSERT INTO pool (pool, slots, used, shrinking, deferred_percent, description) "
    "VALUES (:pool, :slots, 0, {false}, :deferred_percent, :description) "
    "ON CONFLICT (pool) DO UPDATE SET slots = excluded.slots, version = pool.version + 1, "
    "deferred_percent = excluded.deferred_percent, description = excluded.description, "
    "used = :used, shrinking = excluded.slots >= 0 "
    "AND :used > CAST(excluded.slots AS bigint) * 100"
)
_USED = Sql(
    "SELECT coalesce(sum(CAST(i.pool_slots AS bigint) * "
    "CASE WHEN i.state IN ('queued', 'running') THEN 100 "
    "WHEN i.state = 'deferred' OR (i.state = 'scheduled' AND i.next_method IS NOT NULL) "
    "THEN :deferred_percent ELSE 0 END), 0) FROM dag_run r "
    "JOIN task_instance i ON i.dag_run_id = r.id WHERE r.end_date IS NULL AND i.pool = :pool"
)
_DELETE_POOL = Sql("DELETE FROM pool WHERE pool = :pool AND used = 0")


def pause_dag(
    tx: Tx, dag_id: str, paused: bool, *, reason: str | None = None, actor: str = "cli"
) -> bool:
    """Pause or unpause a DAG; False when it is so already.

    Args:
        tx: the transaction.
        dag_id: which.
        paused: whether it is paused from now on.
        reason: why, where no user said so (H12); shown by ``dags details`` while it is paused.
        actor: who, for the event log.
    """
    if tx.run(_PAUSE, dag_id=dag_id, paused=paused, reason=reason) != 1:
        return False
    watchers.sync(tx)
    text = dag_id if reason is None else f"{dag_id}: {reason}"
    tx.run(_LOG_PAUSE, actor=actor, event="pause" if paused else "unpause", reason=text)
    return True


def lock_dags(tx: Tx, dag_ids: Iterable[str]) -> None:
    """Lock DAGs to the end of the transaction, in one order."""
    tx.all(_LOCK_DAGS, rows=tx.rows([{"dag_id": dag_id} for dag_id in dag_ids]))


def last_run_states(tx: Tx, dag_id: str, limit: int) -> list[str]:
    """How the runs of a DAG that ended last have ended, the last one first."""
    return [row.state for row in tx.all(_LAST_STATES, dag_id=dag_id, limit=limit)]


def set_pool(
    tx: Tx,
    pool: str,
    *,
    slots: int,
    deferred_percent: int | None = None,
    description: str | None = None,
) -> bool:
    """Create a pool or change one; True when it is new. What is None stays as it is.

    Fewer slots than are used is allowed: nothing starts until enough are free (S39).

    Args:
        tx: the transaction.
        pool: its name.
        slots: how many; -1 is without limit.
        deferred_percent: how much of its slots a deferred task holds (H5); 0 in a new pool.
        description: for people.
    """
    # The lock stops schedulers from counting meanwhile.
    known = tx.first(_LOCK_POOL, pool=pool)
    if deferred_percent is None:
        deferred_percent = known.deferred_percent if known else 0
    if description is None:
        description = known.description if known else ""
    used = 0
    if known:
        used = int(tx.scalar(_USED, pool=pool, deferred_percent=deferred_percent))
    tx.run(
        _SET_POOL,
        pool=pool,
        slots=slots,
        used=used,
        deferred_percent=deferred_percent,
        description=description,
    )
    return known is None


def delete_pool(tx: Tx, pool: str) -> bool:
    """Delete a pool of which no slot is used; False when there is none such."""
    return tx.run(_DELETE_POOL, pool=pool) == 1
