"""The one statement with which a scheduler's turn begins, and all that an idle turn costs."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roost.models.engine import Sql, Tx

__all__ = ["Look", "look"]


class Look(NamedTuple):
    """What there is to do, and what must not be done.

    Attributes:
        unclaimed: runs wait for a scheduler, or to be read again.
        ended: dispatches have outcomes that nobody has settled.
        fired: triggers have events.
        wished: users want dispatches to end that no worker has claimed.
        next_run_after: when the next scheduled run of any DAG is due, in microseconds, or None.
        paused: DAGs of which no new task may be queued (S13).
        holding: pools that count what is deferred, and how much of a slot, in per cent (H5).
        shrinking: pools with fewer slots than are used.
        assets: events of assets that nobody has looked at.
        awaited: triggers wait for the end of runs.
    """

    unclaimed: bool
    ended: bool
    fired: bool
    wished: bool
    next_run_after: int | None
    paused: frozenset[str]
    holding: dict[str, int]
    shrinking: frozenset[str]
    awaited: bool
    assets: bool


# The job's row stays share-locked to the end of the transaction, so whoever wants to end this job
# waits until the transaction is over: a stale owner cannot commit after a take-over (S15).
_LOOK = Sql(
    "SELECT EXISTS (SELECT 1 FROM dag_run WHERE end_date IS NULL AND (job_id IS NULL OR changed)) "
    "AS unclaimed, "
    "EXISTS (SELECT 1 FROM dispatch WHERE ended_at IS NOT NULL AND NOT settled) AS ended, "
    "EXISTS (SELECT 1 FROM trigger_event) AS fired, "
    "EXISTS (SELECT 1 FROM asset_event WHERE NOT settled) AS assets, "
    "EXISTS (SELECT 1 FROM dispatch WHERE wish IS NOT NULL AND ended_at IS NULL "
    "AND job_id IS NULL) AS wished, "
    "(SELECT min(next_run_after) FROM dag WHERE NOT is_paused AND is_active) AS next_run_after, "
    "(SELECT {json_list:dag_id} FROM dag WHERE is_paused) AS paused, "
    "(SELECT {json_list:CAST(deferred_percent AS text) || ':' || pool} FROM pool "
    "WHERE deferred_percent > 0) AS holding, "
    "(SELECT {json_list:pool} FROM pool WHERE shrinking) AS shrinking, "
    "EXISTS (SELECT 1 FROM trigger WHERE source = 'roost.triggers.runs:DagRunTrigger' "
    "AND fired_at IS NULL) AS awaited "
    "FROM job WHERE id = :me AND ended_at IS NULL {for_share}"
)
_GLANCE = Sql(_LOOK.source.replace(" {for_share}", ""))


def look(tx: Tx, job_id: int, *, lock: bool = True) -> Look | None:
    """See what there is to do; None when the job was ended by others.

    Without ``lock`` it is a glance that promises nothing about the next statement.
    """
    row = tx.first(_LOOK if lock else _GLANCE, me=job_id)
    if row is None:
        return None
    return Look(
        bool(row.unclaimed),
        bool(row.ended),
        bool(row.fired),
        bool(row.wished),
        row.next_run_after,
        _names(row.paused),
        _percents(row.holding),
        _names(row.shrinking),
        bool(row.awaited),
        bool(row.assets),
    )


def _names(found: str | None) -> frozenset[str]:
    return frozenset(msgspec.json.decode(found or "[]"))


def _percents(found: str | None) -> dict[str, int]:
    pairs = (one.partition(":") for one in msgspec.json.decode(found or "[]"))
    return {pool: int(percent) for percent, _, pool in pairs}
