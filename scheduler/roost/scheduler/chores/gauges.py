"""Gauges: true numbers for the whole cluster, reported by one scheduler (N6-N11, 2D)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import msgspec

from roost.models.engine import Tx
from roost.models.queries import gauges
from roost.models.queries.gauges import PoolCount, TriggererCount
from roost.support.clock import SECOND, now_us
from roost.support.gauges import PoolUse, Snapshot, TaskKey, TriggererLoad, gauges_from
from roost.support.stats import Stats

__all__ = ["report_gauges", "snapshot"]

# Who takes over reporting takes back the numbers of what ended while nobody reported: longer
# than a dead reporter's lease lasts and a new scheduler takes to start.
_TAKE_BACK_US = 300 * SECOND


class _Detail(msgspec.Struct):
    capacity: int | None = None


def report_gauges(
    tx: Tx,
    *,
    stats: Stats,
    job_id: int,
    parallelism: int,
    executable: int,
    starving: Mapping[str, int],
) -> None:
    """Report every cluster gauge, if this is the scheduler that reports."""
    if not gauges.is_reporter(tx, job_id):
        stats.forget()
        return
    since = None if stats.reporting else now_us() - _TAKE_BACK_US
    stats.report(gauges_from(snapshot(tx, parallelism, executable, starving, since=since)))


def snapshot(
    tx: Tx,
    parallelism: int,
    executable: int,
    starving: Mapping[str, int],
    *,
    since: int | None = None,
) -> Snapshot:
    """What the database holds, in one transaction.

    Args:
        since: name also what was at work then and is not any more, so that it is reported as 0.
    """
    totals = gauges.totals(tx)
    recent = now_us() if since is None else since
    tasks: dict[TaskKey, dict[str, int]] = defaultdict(dict)
    for row in gauges.task_counts(tx):
        tasks[row.queue, row.dag_id, row.task_id][row.state] = row.instances
    return Snapshot(
        parallelism=parallelism * max(1, totals.schedulers),
        tasks=tasks,
        pools=_pools(gauges.pool_counts(tx), starving),
        executable=executable,
        dagruns_running=totals.dagruns_running,
        dags=totals.dags,
        import_errors=totals.import_errors,
        parse_us=totals.parse_us,
        triggerers=[_load(row) for row in gauges.triggerer_counts(tx, since=recent)],
        known=() if since is None else gauges.recent_tasks(tx, since=since),
    )


def _load(row: TriggererCount) -> TriggererLoad:
    capacity = 0 if row.ended else msgspec.json.decode(row.detail, type=_Detail).capacity
    return TriggererLoad(row.hostname, row.running, capacity)


def _pools(rows: list[PoolCount], starving: Mapping[str, int]) -> list[PoolUse]:
    used: dict[str, Counter[str]] = defaultdict(Counter)
    pools: dict[str, PoolCount] = {}
    for row in rows:
        pools[row.pool] = row
        if row.state is not None:
            used[row.pool][row.state] += row.used
            if row.state == "scheduled" and row.resumed:
                used[row.pool]["resumed"] += row.used
    return [
        PoolUse(
            pool=name,
            slots=pool.slots,
            deferred_percent=pool.deferred_percent,
            running=used[name]["running"],
            queued=used[name]["queued"],
            deferred=used[name]["deferred"],
            scheduled=used[name]["scheduled"],
            resumed=used[name]["resumed"],
            starving=starving.get(name, 0),
        )
        for name, pool in pools.items()
    ]
