"""XComs: what task instances leave for others (S53-S58)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = ["XComValue", "pull", "push"]


class XComValue(NamedTuple):
    """One value to store, on behalf of one dispatch of a task instance."""

    ti_id: int
    dispatch_id: int
    key: str
    value: str


# The dispatch must still be the worker's: a task whose dispatch others have ended writes nothing
# that a next try, or a task downstream, could take for its own (S16).
_PUSH = Sql(
    "INSERT INTO xcom (ti_id, key, value, created_at) "
    "SELECT r.ti_id, r.key, r.value, {now} "
    "FROM {rows:r | ti_id bigint, dispatch_id bigint, key text, value text} "
    "JOIN dispatch d ON d.id = r.dispatch_id AND d.ti_id = r.ti_id "
    "WHERE d.job_id = :me AND d.ended_at IS NULL "
    "ON CONFLICT (ti_id, key) DO UPDATE SET value = excluded.value, "
    "created_at = excluded.created_at RETURNING ti_id"
)
_RUNS = {
    False: "r.run_id = :run_id",
    True: "(r.run_id = :run_id OR r.logical_date <= (SELECT o.logical_date FROM dag_run o "
    "WHERE o.dag_id = :dag_id AND o.run_id = :run_id))",
}
_NEWEST = "r.logical_date IS NULL, r.logical_date DESC, x.created_at DESC, x.key"
_FILTERS = (
    "FROM xcom x JOIN task_instance t ON t.id = x.ti_id JOIN dag_run r ON r.id = t.dag_run_id "
    "WHERE r.dag_id = :dag_id AND {RUNS} "
    "AND (:any_key = 1 OR x.key = :key) AND (:map_index < -1 OR t.map_index = :map_index) "
)


def _per_task(prior: bool) -> Sql:
    inner = (
        "SELECT t.task_id AS task_id, x.value AS value, row_number() OVER (PARTITION BY t.task_id "
        f"ORDER BY {_NEWEST}) AS place {_FILTERS.replace('{RUNS}', _RUNS[prior])}"
        "AND t.task_id IN (SELECT w.task_id FROM {rows:w | task_id text})"
    )
    return Sql(f"SELECT task_id, value FROM ({inner}) AS ranked WHERE place = 1")


def _any_task(prior: bool) -> Sql:
    filters = _FILTERS.replace("{RUNS}", _RUNS[prior])
    return Sql(f"SELECT x.value {filters}ORDER BY {_NEWEST} LIMIT 1")


_PER_TASK = {prior: _per_task(prior) for prior in (False, True)}
_ANY_TASK = {prior: _any_task(prior) for prior in (False, True)}


def push(tx: Tx, job_id: int, values: Sequence[XComValue]) -> set[int]:
    """Store values, replacing what there was under the key.

    Gives the task instances whose values were stored: not those whose dispatch this worker does
    not hold any more. To be called before the dispatches are ended.
    """
    if not values:
        return set()
    rows = [value._asdict() for value in values]
    return {row.ti_id for row in tx.all(_PUSH, me=job_id, rows=tx.rows(rows))}


def pull(
    tx: Tx,
    *,
    dag_id: str,
    run_id: str,
    task_ids: Sequence[str] | None,
    key: str | None,
    map_index: int | None,
    include_prior_dates: bool,
) -> list[str | None]:
    """The most recent matching value for each of ``task_ids``, in that order (S56, S57).

    Most recent is by the logical date of the run, then by the time of writing.

    Args:
        tx: the transaction.
        dag_id: of the run.
        run_id: the run, or the latest of the runs with ``include_prior_dates``.
        task_ids: None: whoever's, one value.
        key: None: any.
        map_index: None: any.
        include_prior_dates: also look at earlier runs of the DAG.

    Returns:
        JSON texts; None where nothing matched.
    """
    params = {
        "dag_id": dag_id,
        "run_id": run_id,
        "key": key or "",
        "any_key": int(key is None),
        "map_index": -2 if map_index is None else map_index,
    }
    if task_ids is None:
        return [tx.scalar(_ANY_TASK[include_prior_dates], **params)]
    wanted = tx.rows([{"task_id": task_id} for task_id in dict.fromkeys(task_ids)])
    found = tx.all(_PER_TASK[include_prior_dates], rows=wanted, **params)
    values = {row.task_id: row.value for row in found}
    return [values.get(task_id) for task_id in task_ids]
