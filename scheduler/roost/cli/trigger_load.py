"""``roost triggers load``: how the triggerers share the work."""

from __future__ import annotations

import click

from roost.cli.base import Command
from roost.cli.output import emit, output_option
from roost.cli.session import reading
from roost.cli.waiting import triggerer_of
from roost.models.queries import listing
from roost.support.clock import SECOND

__all__ = ["load"]

_COLUMNS = (
    "triggerer", "queues", "capacity", "running", "free", "share", "struck", "quarantined",
    "lease_age_s",
)  # fmt: skip


@click.command(cls=Command)
@output_option
def load(output: str) -> None:
    """List the triggerers that live, with how many poll triggers each runs.

    Timers and triggers that wait for events are rows; any triggerer fires them. share: of all that
    are polled. struck: those that blocked or ended their runner; quarantined: twice.
    """
    with reading() as (_, tx):
        counts = {row.job_id: row for row in listing.trigger_counts(tx)}
        jobs = [job for job in listing.live_jobs(tx) if job.kind == "triggerer"]
    total = sum(row.running for row in counts.values())
    rows = []
    for job in jobs:
        one, count = triggerer_of(job), counts.get(job.id)
        running = count.running if count else 0
        rows.append(
            {
                "triggerer": f"{one.hostname}:{one.pid}",
                "queues": sorted(one.queues),
                "capacity": one.capacity,
                "running": running,
                "free": None if one.capacity is None else max(0, one.capacity - running),
                "share": round(running / total, 3) if total else 0.0,
                "struck": int(count.struck) if count else 0,
                "quarantined": int(count.quarantined) if count else 0,
                "lease_age_s": round(job.lease_age / SECOND, 1),
            }
        )
    emit(rows, _COLUMNS, output)
