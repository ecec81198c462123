"""Daemons and their leases. A lease is kept and judged by the database's clock only.

On the host that asks, a daemon whose process is gone is dead at once, and one whose process is
alive is not declared dead by its lease: it may be waiting for the same database that we wait for.
A daemon elsewhere is dead when its lease has lapsed.
"""

from __future__ import annotations

from typing import NamedTuple

from roost.models.engine import Sql, Tx
from roost.support.clock import SECOND
from roost.support.far_bell import channel
from roost.support.processes import Process

__all__ = [
    "LAPSE_MARGIN_S",
    "LEASE_RENEW_S",
    "LEASE_TTL_S",
    "Job",
    "Lease",
    "end",
    "live",
    "owns_lease",
    "register",
    "renew",
    "ring_elsewhere",
    "server_up_s",
    "survey",
]

LEASE_TTL_S = 12
LEASE_RENEW_S = 4
# To be sure that a lease which is about to lapse has done so when somebody looks.
LAPSE_MARGIN_S = 0.1


class Job(NamedTuple):
    """A daemon that has not ended, as its row says.

    Attributes:
        lapsed: its lease is over.
        left_us: microseconds until it is, negative afterwards.
    """

    id: int
    kind: str
    hostname: str
    host_id: str
    pid: int
    pid_start: int
    run_dir: str
    token: str
    lapsed: bool
    left_us: int
    detail: str


class Lease(NamedTuple):
    """A lease that has been renewed.

    Attributes:
        elsewhere: kinds of the daemons that live on other hosts or in other run directories.
    """

    elsewhere: frozenset[str]


_REGISTER = Sql(
    "INSERT INTO job (kind, hostname, host_id, pid, pid_start, run_dir, token, started_at, "
    "lease_until, detail) VALUES (:kind, :hostname, :host_id, :pid, :pid_start, :run_dir, "
    ":token, {now}, {now} + :ttl, :detail) RETURNING id"
)
_RENEW = Sql(
    "UPDATE job SET lease_until = {now} + :ttl, detail = :detail "
    "WHERE id = :id AND ended_at IS NULL"
)
# The same statement says who is elsewhere, so that nobody has to ask (P17). Not by leases: after an
# outage all have lapsed, and whom the rescue has not given up yet may be rung in vain.
_ELSEWHERE = "o.ended_at IS NULL AND (o.host_id <> {0}host_id OR o.run_dir <> {0}run_dir)"
_RENEW_AND_LOOK = Sql(
    _RENEW.source + " RETURNING ARRAY(SELECT DISTINCT o.kind FROM job o WHERE "
    f"{_ELSEWHERE.format('job.')}) AS elsewhere"
)
_RING = Sql(
    "SELECT pg_notify(:channel, '') FROM job o WHERE o.kind = :kind AND "
    f"{_ELSEWHERE.format(':')} LIMIT 1"
)
_END = Sql("UPDATE job SET ended_at = {now} WHERE id = :id AND ended_at IS NULL")
_OWNS = Sql("SELECT 1 FROM job WHERE id = :id AND ended_at IS NULL {for_share}")
_LIVE = Sql(
    "SELECT id, kind, hostname, host_id, pid, pid_start, run_dir, token, "
    "lease_until < {now} AS lapsed, lease_until - {now} AS left_us, "
    "detail FROM job WHERE ended_at IS NULL ORDER BY id"
)
# By the same clock; before 0 where that was set back since.
_SERVER_UP = Sql(
    "SELECT {now} - CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint)"
)
# The last column: what daemons that have ended still hold, if they could not give it back.
_SURVEY = Sql(
    _LIVE.source.replace(
        " FROM job ",
        ", EXISTS (SELECT 1 FROM dispatch d JOIN job j ON j.id = d.job_id "
        "WHERE d.ended_at IS NULL AND d.job_id IS NOT NULL AND j.ended_at IS NOT NULL) "
        "OR EXISTS (SELECT 1 FROM dag_run r JOIN job j ON j.id = r.job_id "
        "WHERE r.end_date IS NULL AND r.job_id IS NOT NULL AND j.ended_at IS NOT NULL) "
        "AS left_behind FROM job ",
    )
)


def register(tx: Tx, kind: str, me: Process, run_dir: str, *, detail: str = "{}") -> int:
    """Insert a daemon's row with a fresh lease; gives its id."""
    return int(
        tx.scalar(
            _REGISTER,
            kind=kind,
            hostname=me.hostname,
            host_id=me.host_id,
            pid=me.pid,
            pid_start=me.started,
            run_dir=run_dir,
            token=me.token,
            ttl=LEASE_TTL_S * SECOND,
            detail=detail,
        )
    )


def renew(tx: Tx, job_id: int, *, detail: str = "{}") -> Lease | None:
    """Prolong a lease; None when somebody has ended the job: drop memory and rejoin."""
    ttl = LEASE_TTL_S * SECOND
    if tx.dialect == "sqlite":  # who shares the file is no further than a poll interval
        return Lease(frozenset()) if tx.run(_RENEW, id=job_id, ttl=ttl, detail=detail) else None
    row = tx.first(_RENEW_AND_LOOK, id=job_id, ttl=ttl, detail=detail)
    return None if row is None else Lease(frozenset(row.elsewhere))


def ring_elsewhere(tx: Tx, kind: str, host_id: str, run_dir: str) -> None:
    """Wake the daemons of a kind that live in other places, if any do; PostgreSQL only.

    For commands: a daemon has a :class:`~roost.support.far_bell.FarDoorbell`.
    """
    tx.first(_RING, channel=channel(kind), kind=kind, host_id=host_id, run_dir=run_dir)


def owns_lease(tx: Tx, job_id: int) -> bool:
    """True while the job has not been ended by others.

    The row stays share-locked to the end of the transaction, so whoever wants to end this job
    waits until the transaction is over: a stale owner cannot commit after a take-over (S15).
    """
    return tx.first(_OWNS, id=job_id) is not None


def end(tx: Tx, job_id: int) -> bool:
    """Mark a daemon as ended; False when it already was."""
    return tx.run(_END, id=job_id) == 1


def live(tx: Tx) -> list[Job]:
    """Every daemon that has not ended, its lease lapsed or not."""
    return [Job._make(row)._replace(lapsed=bool(row.lapsed)) for row in tx.all(_LIVE)]


def survey(tx: Tx) -> tuple[list[Job], bool]:
    """The live daemons, and whether ended ones still hold dispatches or runs; one statement."""
    rows = tx.all(_SURVEY)
    found = [Job._make(row[:-1])._replace(lapsed=bool(row.lapsed)) for row in rows]
    return found, any(row.left_behind for row in rows)


def server_up_s(tx: Tx) -> float:
    """For how many seconds the database's server has run; infinite where there is none (SQLite)."""
    return max(0.0, tx.scalar(_SERVER_UP) / SECOND) if tx.dialect == "postgresql" else float("inf")
