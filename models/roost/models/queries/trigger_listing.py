"""``roost triggers list``: the triggers there are, chosen and a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.models.sql import Row

__all__ = ["Wanted", "trigger_count", "trigger_rows"]

# What is not asked for costs nothing: each row is held against it by its own ids, never by a join.
_WANTED = (
    "FROM trigger t WHERE t.id > :after AND (CAST(:dag_id AS text) IS NULL OR EXISTS (SELECT 1 "
    "FROM dag_run q WHERE q.id = t.dag_run_id AND q.dag_id = :dag_id) OR EXISTS (SELECT 1 "
    "FROM asset_watcher w WHERE w.hash = t.watcher_hash AND w.dag_id = :dag_id)) "
    "AND (CAST(:run_id AS text) IS NULL OR EXISTS (SELECT 1 FROM dag_run q "
    "WHERE q.id = t.dag_run_id AND q.run_id = :run_id)) "
    "AND (CAST(:task_id AS text) IS NULL OR EXISTS (SELECT 1 FROM task_instance q "
    "WHERE q.id = t.ti_id AND q.task_id = :task_id)) "
    "AND (CAST(:lane AS text) IS NULL OR t.lane = :lane) "
    "AND (CAST(:queue AS text) IS NULL OR t.queue = :queue) "
    "AND (CAST(:classpath AS text) IS NULL OR t.classpath = :classpath "
    "OR substr(t.classpath, length(t.classpath) - length(CAST(:classpath AS text))) "
    "= '.' || CAST(:classpath AS text)) "
    "AND (CAST(:triggerer AS text) IS NULL OR t.job_id IN (SELECT q.id FROM job q "
    "WHERE q.hostname = :triggerer OR q.hostname || ':' || CAST(q.pid AS text) = :triggerer)) "
    "AND (CAST(:in_trouble AS integer) = 0 OR t.strikes > 0 OR t.trouble IS NOT NULL)"
)
_ROWS = Sql(
    "SELECT t.id AS trigger_id, t.lane, t.classpath, r.dag_id, r.run_id, i.task_id, i.map_index, "
    "j.hostname, j.pid, t.created_at, t.due_at, t.strikes, t.trouble, t.timeout_at, t.queue, "
    "t.code_hash, CASE WHEN t.watcher_hash IS NOT NULL THEN (SELECT min(w.name) "
    "FROM asset_watcher w WHERE w.hash = t.watcher_hash) END AS watcher "
    f"FROM (SELECT t.* {_WANTED} ORDER BY t.id LIMIT :most) AS t "
    "LEFT JOIN task_instance i ON i.id = t.ti_id LEFT JOIN dag_run r ON r.id = t.dag_run_id "
    "LEFT JOIN job j ON j.id = t.job_id ORDER BY t.id"
)
_COUNT = Sql(f"SELECT count(*) {_WANTED}")


class Wanted(NamedTuple):
    """Which triggers; None is any.

    Attributes:
        dag_id: of a task or a watcher of this DAG.
        classpath: the class as it is written down, or its name alone.
        triggerer: run by this one: a host, or host:pid.
        in_trouble: only those that ended or blocked their runner, or could not begin.
    """

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    lane: str | None = None
    queue: str | None = None
    classpath: str | None = None
    triggerer: str | None = None
    in_trouble: bool = False

    def params(self, after: int | None) -> dict[str, object]:
        """The parameters of a statement that looks behind an id."""
        return {**self._asdict(), "in_trouble": int(self.in_trouble), "after": after or 0}


def trigger_rows(tx: Tx, wanted: Wanted, after: int | None, most: int) -> Sequence[Row]:
    """Triggers that a deferred task waits for or a watcher has, each with its triggerer.

    Args:
        tx: the transaction.
        wanted: which.
        after: only those with a greater id, in order of their ids.
        most: at most this many.
    """
    return tx.all(_ROWS, **wanted.params(after), most=most)


def trigger_count(tx: Tx, wanted: Wanted, after: int | None) -> int:
    """How many of them there are behind an id."""
    return int(tx.scalar(_COUNT, **wanted.params(after)))
