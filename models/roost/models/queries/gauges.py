"""What the gauges are computed from: one consistent look at the database (N6-N10, 2D)."""

from __future__ import annotations

from typing import NamedTuple

from roost.models.engine import Sql, Tx

__all__ = [
    "PoolCount",
    "TaskCount",
    "Totals",
    "TriggererCount",
    "is_reporter",
    "pool_counts",
    "recent_tasks",
    "task_counts",
    "totals",
    "triggerer_counts",
]


class TaskCount(NamedTuple):
    """Task instances of one task in one state."""

    queue: str
    dag_id: str
    task_id: str
    state: str
    instances: int


class PoolCount(NamedTuple):
    """Slots of one pool's task instances in one state; ``resumed``: back from a deferral."""

    pool: str
    slots: int
    deferred_percent: int
    state: str | None
    resumed: bool
    used: int


class TriggererCount(NamedTuple):
    """Poll triggers that one triggerer runs; ``detail`` is its job's JSON."""

    hostname: str
    running: int
    detail: str
    ended: bool


class Totals(NamedTuple):
    """Numbers of the whole installation."""

    schedulers: int
    dagruns_running: int
    dags: int
    import_errors: int
    parse_us: int


_LIVE_STATES = "('scheduled', 'queued', 'running', 'deferred')"
_TASKS = Sql(
    "SELECT t.queue, r.dag_id, t.task_id, t.state, count(*) "
    "FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    f"WHERE r.end_date IS NULL AND t.state IN {_LIVE_STATES} "
    "GROUP BY t.queue, r.dag_id, t.task_id, t.state"
)
_POOLS = Sql(
    "SELECT p.pool, p.slots, p.deferred_percent, u.state, u.resumed, "
    "coalesce(u.used, 0) AS used FROM pool p LEFT JOIN ("
    "SELECT t.pool, t.state, t.next_method IS NOT NULL AS resumed, sum(t.pool_slots) AS used "
    "FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    f"WHERE r.end_date IS NULL AND t.state IN {_LIVE_STATES} "
    "GROUP BY t.pool, t.state, t.next_method IS NOT NULL"
    ") u ON u.pool = p.pool ORDER BY p.pool"
)
_TRIGGERERS = Sql(
    "SELECT j.hostname, j.detail, j.ended_at IS NOT NULL AS ended, "
    "(SELECT count(*) FROM trigger t WHERE t.job_id = j.id AND t.fired_at IS NULL) AS running "
    "FROM job j WHERE j.kind = 'triggerer' AND (j.ended_at IS NULL OR j.ended_at >= :since)"
)
_RECENT = Sql(
    "SELECT DISTINCT t.queue, r.dag_id, t.task_id "
    "FROM dag_run r JOIN task_instance t ON t.dag_run_id = r.id "
    "WHERE r.end_date IS NULL OR r.end_date >= :since"
)
_TOTALS = Sql(
    "SELECT "
    "(SELECT count(*) FROM job WHERE kind = 'scheduler' AND ended_at IS NULL) AS schedulers, "
    "(SELECT count(*) FROM dag_run WHERE state = 'running' AND end_date IS NULL) "
    "AS dagruns_running, "
    "(SELECT count(*) FROM dag WHERE is_active) AS dags, "
    "(SELECT count(*) FROM dag_file WHERE error IS NOT NULL) AS import_errors, "
    "(SELECT coalesce(sum(parse_us), 0) FROM dag_file) AS parse_us"
)
_REPORTER = Sql("SELECT min(id) FROM job WHERE kind = 'scheduler' AND ended_at IS NULL")


def is_reporter(tx: Tx, job_id: int) -> bool:
    """Whether this scheduler reports for all: the oldest does, so that no gauge has two truths."""
    return bool(tx.scalar(_REPORTER) == job_id)


def task_counts(tx: Tx) -> list[TaskCount]:
    """Task instances of unfinished runs by task and state."""
    return [TaskCount._make(row) for row in tx.all(_TASKS)]


def pool_counts(tx: Tx) -> list[PoolCount]:
    """Every pool with the slots of its task instances by state; one row of None if it has none."""
    return [PoolCount._make(row) for row in tx.all(_POOLS)]


def triggerer_counts(tx: Tx, *, since: int) -> list[TriggererCount]:
    """The triggerers that live, or ended at ``since`` or later, and what they run."""
    return [
        TriggererCount(row.hostname, row.running, row.detail, bool(row.ended))
        for row in tx.all(_TRIGGERERS, since=since)
    ]


def recent_tasks(tx: Tx, *, since: int) -> list[tuple[str, str, str]]:
    """(queue, dag_id, task_id) of every run that is unfinished or ended at ``since`` or later."""
    return [(row.queue, row.dag_id, row.task_id) for row in tx.all(_RECENT, since=since)]


def totals(tx: Tx) -> Totals:
    """Numbers of the whole installation."""
    return Totals._make(tx.all(_TOTALS)[0])
