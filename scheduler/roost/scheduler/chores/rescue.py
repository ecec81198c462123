"""Rescue: daemons that died are declared dead, and what they held is given back.

A worker's dispatches end as ``lost`` and are handed over anew, a scheduler's runs are free to be
taken, and triggerers take each other's triggers by themselves once the job has ended. What a dead
worker of this host left behind is killed first: two copies of a task never live (S1).
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import msgspec

from roost.models.engine import Tx
from roost.models.queries import handoffs, jobs, runs
from roost.models.queries.jobs import Job
from roost.support.clock import SECOND, now_us
from roost.support.processes import Process, is_alive
from roost.support.wire import Outcome
from roost.worker.leftovers import kill_leftovers

__all__ = ["Rescued", "Survey", "dead_jobs", "rescue", "survey"]

log = logging.getLogger("roost.scheduler")


class Survey(NamedTuple):
    """What a scheduler has to know of the daemons.

    Attributes:
        neighbours: those of this host that live.
        needed: whether there is anything to rescue.
        lapse_s: in how many seconds the next lease elsewhere is over if it is not renewed; 0: one
            is and was not to be judged.
    """

    neighbours: list[Job]
    needed: bool
    lapse_s: float


class Rescued(NamedTuple):
    """Daemons declared dead, and how many dispatches were lost with them."""

    ended: list[Job]
    lost: int


def dead_jobs(live: list[Job], me: Process, *, judge_leases: bool) -> list[Job]:
    """Which of the daemons that have not said goodbye are gone.

    Args:
        live: jobs that have not ended.
        me: this process.
        judge_leases: False for a while after an outage of the database: daemons elsewhere could
            not renew their leases either.
    """
    dead = []
    for job in live:
        if job.host_id == me.host_id:
            if not is_alive(job.pid, job.pid_start):
                dead.append(job)
        elif job.lapsed and judge_leases:
            dead.append(job)
    return dead


def survey(tx: Tx, me: Process, *, judge_leases: bool) -> Survey:
    """Look around without writing: one statement while nobody has died."""
    live, left_behind = jobs.survey(tx)
    dead = dead_jobs(live, me, judge_leases=judge_leases)
    gone = {job.id for job in dead}
    neighbours = [j for j in live if j.id not in gone and j.host_id == me.host_id]
    left = [j.left_us for j in live if j.id not in gone and j.host_id != me.host_id]
    lapse_s = max(0.0, min(left) / SECOND) if left else float("inf")
    return Survey(neighbours, bool(dead) or left_behind, lapse_s)


def rescue(tx: Tx, me: Process, *, judge_leases: bool) -> Rescued:
    """Declare the dead dead and give back what they held, in the caller's transaction."""
    ended = dead_jobs(jobs.live(tx), me, judge_leases=judge_leases)
    for job in ended:
        if job.kind == "worker" and job.host_id == me.host_id:
            leftovers = kill_leftovers(job.token)
            if leftovers:
                log.warning("killed %d processes that worker %d left", len(leftovers), job.id)
        jobs.end(tx, job.id)
    runs.release_runs_of_ended_schedulers(tx)
    lost = handoffs.end_lost_dispatches(tx, _lost_outcome())
    return Rescued(ended, len(lost))


def _lost_outcome() -> str:
    now = now_us()
    outcome = Outcome("lost", started_at=now, ended_at=now, error="its worker died")
    return msgspec.json.encode(outcome).decode()
