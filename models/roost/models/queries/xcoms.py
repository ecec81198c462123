"""XComs: what task instances leave for others (S53-S58)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.support.wire import XComWrite

__all__ = [
    "XComPlace",
    "XComValue",
    "gather",
    "leave",
    "locate",
    "measure",
    "pull",
    "push",
    "value_at",
]


class XComValue(NamedTuple):
    """One value to store, on behalf of one dispatch of a task instance."""

    ti_id: int
    dispatch_id: int
    key: str
    value: str
    length: int | None = None


class XComPlace(NamedTuple):
    """Where a value is, and since when: enough to know it again without reading it."""

    ti_id: int
    key: str
    created_at: int
    length: int | None


# The dispatch must still be the worker's: a task whose dispatch others have ended writes nothing
# that a next try, or a task downstream, could take for its own (S16).
_PUSH = Sql(
    "INSERT INTO xcom (ti_id, key, value, length, created_at) "
    "SELECT r.ti_id, r.key, r.value, r.length, {now} "
    "FROM {rows:r | ti_id bigint, dispatch_id bigint, key text, value text, length integer} "
    "JOIN dispatch d ON d.id = r.dispatch_id AND d.ti_id = r.ti_id "
    "WHERE d.job_id = :me AND d.ended_at IS NULL "
    "ON CONFLICT (ti_id, key) DO UPDATE SET value = excluded.value, "
    "length = excluded.length, created_at = excluded.created_at RETURNING ti_id"
)
_LEFT_BYTES = 16 * 2**20  # in a statement: its rows are one parameter, and a database has limits
_LEAVE = Sql(
    "INSERT INTO xcom (ti_id, key, value, length, created_at) "
    "SELECT r.ti_id, r.key, r.value, r.length, {now} "
    "FROM {rows:r | ti_id bigint, key text, value text, length integer} WHERE {true} "
    "ON CONFLICT (ti_id, key) DO UPDATE SET value = excluded.value, "
    "length = excluded.length, created_at = excluded.created_at"
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


_PLACE = ", ".join(XComPlace._fields)


def _per_task(prior: bool, columns: str) -> Sql:
    wanted = ", ".join(f"x.{name} AS {name}" for name in columns.split(", "))
    inner = (
        f"SELECT t.task_id AS task_id, {wanted}, row_number() OVER (PARTITION BY t.task_id "
        f"ORDER BY {_NEWEST}) AS place {_FILTERS.replace('{RUNS}', _RUNS[prior])}"
        "AND t.task_id IN (SELECT w.task_id FROM {rows:w | task_id text})"
    )
    return Sql(f"SELECT task_id, {columns} FROM ({inner}) AS ranked WHERE place = 1")


def _any_task(prior: bool) -> Sql:
    filters = _FILTERS.replace("{RUNS}", _RUNS[prior])
    return Sql(f"SELECT x.value {filters}ORDER BY {_NEWEST} LIMIT 1")


_PER_TASK = {prior: _per_task(prior, "value") for prior in (False, True)}
_PLACES = {prior: _per_task(prior, _PLACE) for prior in (False, True)}
_ANY_TASK = {prior: _any_task(prior) for prior in (False, True)}
_VALUE_AT = Sql("SELECT value FROM xcom WHERE ti_id = :ti_id AND key = :key")
_INSTANCES = (
    "FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id AND t.task_id = :task_id "
    "JOIN xcom x ON x.ti_id = t.id AND x.key = :key "
    "WHERE r.dag_id = :dag_id AND r.run_id = :run_id AND t.state <> 'removed'"
)
_GATHER = Sql(f"SELECT x.value {_INSTANCES} ORDER BY t.map_index LIMIT :limit OFFSET :start")
_COUNT = Sql(f"SELECT count(*) {_INSTANCES}")


def push(tx: Tx, job_id: int, values: Sequence[XComValue]) -> set[int]:
    """Store values, replacing what there was under the key.

    Gives the task instances whose values were stored: not those whose dispatch this worker does
    not hold any more. To be called before the dispatches are ended.
    """
    if not values:
        return set()
    rows = [value._asdict() for value in values]
    return {row.ti_id for row in tx.all(_PUSH, me=job_id, rows=tx.rows(rows))}


def leave(tx: Tx, values: Mapping[int, Sequence[XComWrite]]) -> None:
    """Store what triggers pushed for tasks, by task instance; the caller has moved these (D11)."""
    rows: list[dict[str, object]] = []
    size = 0
    for ti_id, pushed in values.items():
        for one in pushed:
            value = bytes(one.value).decode()
            rows.append({"ti_id": ti_id, "key": one.key, "value": value, "length": one.length})
            size += len(value)
            if size > _LEFT_BYTES:
                tx.run(_LEAVE, rows=tx.rows(rows))
                rows, size = [], 0
    if rows:
        tx.run(_LEAVE, rows=tx.rows(rows))


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


def locate(
    tx: Tx,
    *,
    dag_id: str,
    run_id: str,
    task_ids: Sequence[str],
    key: str,
    map_index: int | None,
    include_prior_dates: bool,
) -> list[XComPlace | None]:
    """Where the values are that :func:`pull` would give: for values too large to read in vain."""
    wanted = tx.rows([{"task_id": task_id} for task_id in dict.fromkeys(task_ids)])
    found = tx.all(
        _PLACES[include_prior_dates],
        rows=wanted,
        dag_id=dag_id,
        run_id=run_id,
        key=key,
        any_key=0,
        map_index=-2 if map_index is None else map_index,
    )
    places = {row.task_id: XComPlace._make(row[1:]) for row in found}
    return [places.get(task_id) for task_id in task_ids]


def value_at(tx: Tx, place: XComPlace) -> str | None:
    """The value at a place; JSON text."""
    return tx.scalar(_VALUE_AT, ti_id=place.ti_id, key=place.key)  # type: ignore[no-any-return]


def gather(
    tx: Tx, *, dag_id: str, run_id: str, task_id: str, key: str, element: int | None = None
) -> list[str]:
    """What the instances of a mapped task left, by map_index and without gaps (H17).

    Args:
        tx: the transaction.
        dag_id: of the run.
        run_id: the run.
        task_id: the mapped task.
        key: of the values.
        element: only the value at this place of the list.

    Returns:
        JSON texts.
    """
    found = tx.all(
        _GATHER,
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        key=key,
        limit=2**31 if element is None else 1,
        start=element or 0,
    )
    return [row.value for row in found]


def measure(tx: Tx, *, dag_id: str, run_id: str, task_id: str, key: str) -> int:
    """How many instances of a mapped task left a value (H17)."""
    return int(tx.scalar(_COUNT, dag_id=dag_id, run_id=run_id, task_id=task_id, key=key))
