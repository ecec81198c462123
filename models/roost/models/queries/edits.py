"""What the command line changes by itself: pauses and pools. States are changed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from roost.models.engine import Sql, Tx

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
_LOCK_POOL = Sql("SELECT include_deferred, description FROM pool WHERE pool = :pool {for_update}")
# Counted anew, because include_deferred decides what counts: slots of what is queued or runs,
# and with it also of what is deferred or resumed and not yet running (H5).
_SET_POOL = Sql(
    "INSERT INTO pool (pool, slots, used, shrinking, include_deferred, description) "
    "VALUES (:pool, :slots, 0, {false}, :include_deferred, :description) "
    "ON CONFLICT (pool) DO UPDATE SET slots = excluded.slots, version = pool.version + 1, "
    "include_deferred = excluded.include_deferred, description = excluded.description, "
    "used = :used, shrinking = excluded.slots >= 0 AND :used > excluded.slots"
)
_USED = Sql(
    "SELECT coalesce(sum(i.pool_slots), 0) FROM dag_run r "
    "JOIN task_instance i ON i.dag_run_id = r.id WHERE r.end_date IS NULL AND i.pool = :pool "
    "AND (i.state IN ('queued', 'running') OR (:include_deferred AND (i.state = 'deferred' "
    "OR (i.state = 'scheduled' AND i.next_method IS NOT NULL))))"
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
    include_deferred: bool | None = None,
    description: str | None = None,
) -> bool:
    """Create a pool or change one; True when it is new. What is None stays as it is.

    Fewer slots than are used is allowed: nothing starts until enough are free (S39).
    """
    # The lock stops schedulers from counting meanwhile.
    known = tx.first(_LOCK_POOL, pool=pool)
    if include_deferred is None:
        include_deferred = bool(known and known.include_deferred)
    if description is None:
        description = known.description if known else ""
    used = 0
    if known:
        used = int(tx.scalar(_USED, pool=pool, include_deferred=include_deferred))
    tx.run(
        _SET_POOL,
        pool=pool,
        slots=slots,
        used=used,
        include_deferred=include_deferred,
        description=description,
    )
    return known is None


def delete_pool(tx: Tx, pool: str) -> bool:
    """Delete a pool of which no slot is used; False when there is none such."""
    return tx.run(_DELETE_POOL, pool=pool) == 1
