"""Leases: kept and judged by the database's clock; who is dead, and when (invariant S15, L4)."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from roost.models import tables
from roost.models.engine import driver_arguments, open_engine, read, transact
from roost.models.queries import jobs
from roost.models.queries.jobs import LEASE_TTL_S, Job
from roost.scheduler.chores.rescue import Survey, dead_jobs, survey
from roost.support.clock import SECOND
from roost.support.processes import Process, me
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

JOB = tables.job
ELSEWHERE = Process("other", "boot:elsewhere", 1, 1, "token")


def register(engine: Engine, process: Process, kind: str = "worker") -> int:
    return transact(engine, lambda tx: jobs.register(tx, kind, process, "/run", detail='{"a":1}'))


def lapse(engine: Engine, job_id: int, by_us: int = SECOND) -> None:
    """Move a lease into the past, by the clock that judges it."""
    with engine.begin() as db:
        db.execute(
            sa.update(JOB)
            .where(JOB.c.id == job_id)
            .values(lease_until=JOB.c.lease_until - LEASE_TTL_S * SECOND - by_us)
        )


def live(engine: Engine) -> list[Job]:
    return transact(engine, jobs.live)


def test_a_lease_lasts_its_time_by_the_databases_clock(engine: Engine) -> None:
    job_id = register(engine, ELSEWHERE)
    with engine.begin() as db:
        row = db.execute(sa.select(JOB)).one()
    assert row.lease_until - row.started_at in range(
        LEASE_TTL_S * SECOND, LEASE_TTL_S * SECOND + SECOND
    )
    (job,) = live(engine)
    assert (job.id, job.lapsed, job.detail) == (job_id, False, '{"a":1}')
    lapse(engine, job_id)
    assert live(engine)[0].lapsed
    assert transact(engine, lambda tx: jobs.renew(tx, job_id, detail="{}"))
    (job,) = live(engine)
    assert (job.lapsed, job.detail) == (False, "{}")


def test_a_wall_clock_of_ours_that_steps_judges_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no clock of its own")
    register(engine, ELSEWHERE)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert not live(engine)[0].lapsed


def test_an_ended_job_has_no_lease_any_more(engine: Engine) -> None:
    job_id = register(engine, ELSEWHERE)
    assert transact(engine, lambda tx: jobs.owns_lease(tx, job_id))
    assert transact(engine, lambda tx: jobs.end(tx, job_id))
    assert not transact(engine, lambda tx: jobs.end(tx, job_id))
    assert not transact(engine, lambda tx: jobs.owns_lease(tx, job_id))
    assert not transact(engine, lambda tx: jobs.renew(tx, job_id))
    assert live(engine) == []


def test_ids_are_never_given_twice(engine: Engine) -> None:
    first = register(engine, ELSEWHERE)
    with engine.begin() as db:
        db.execute(sa.delete(JOB))
    assert register(engine, ELSEWHERE) > first


def test_who_is_dead(engine: Engine) -> None:
    """Here: whose process is gone, at once, whatever its lease. Elsewhere: whose lease lapsed."""
    mine = me()
    gone = mine._replace(pid=2**22 - 1, started=1)  # above pid_max of most machines
    recycled = mine._replace(started=mine.started + 1)
    assert mine.pid == os.getpid()
    ids = {
        name: register(engine, process)
        for name, process in {
            "here": mine,
            "here, lapsed": mine,
            "gone": gone,
            "pid reused": recycled,
            "elsewhere": ELSEWHERE,
            "elsewhere, lapsed": ELSEWHERE,
        }.items()
    }
    for name, job_id in ids.items():
        if "lapsed" in name:
            lapse(engine, job_id)
    names = {job_id: name for name, job_id in ids.items()}

    def dead(*, judge: bool) -> set[str]:
        return {names[job.id] for job in dead_jobs(live(engine), mine, judge_leases=judge)}

    assert dead(judge=True) == {"gone", "pid reused", "elsewhere, lapsed"}
    assert dead(judge=False) == {"gone", "pid reused"}


def test_a_survey_tells_when_the_next_lease_elsewhere_is_over(engine: Engine) -> None:
    """invariant L4: a scheduler looks then, and not a poll interval later."""
    mine = me()

    def look(*, judge: bool) -> Survey:
        return transact(engine, lambda tx: survey(tx, mine, judge_leases=judge))

    register(engine, mine)
    assert look(judge=True).lapse_s == float("inf")
    sooner = register(engine, ELSEWHERE)
    lapse(engine, sooner, -5 * SECOND)
    register(engine, ELSEWHERE)
    assert 0 < look(judge=True).lapse_s <= 5
    lapse(engine, sooner, 0)
    assert look(judge=False).lapse_s == 0
    assert 5 < look(judge=True).lapse_s <= LEASE_TTL_S  # that of the other


def test_the_database_tells_how_long_its_server_has_run() -> None:
    """invariant S15: who comes after a crash learns of it."""
    with PostgresServer(durable=True, options=("fsync=off",)) as server:
        assert server.info is not None
        engine = open_engine(server.info.url("postgres"))
        assert transact(engine, jobs.server_up_s) > 0
        crashed_at = time.monotonic()
        server.restart()

        def new() -> bool:
            with suppress(OperationalError):
                return transact(engine, jobs.server_up_s) < time.monotonic() - crashed_at
            return False

        wait_until(new, what="the server to say that it has just started")
        engine.dispose()


def elsewhere(engine: Engine, job_id: int) -> frozenset[str]:
    lease = transact(engine, lambda tx: jobs.renew(tx, job_id))
    assert lease is not None
    return lease.elsewhere


def test_a_renewal_tells_which_daemons_live_in_other_places(engine: Engine) -> None:
    """P17: on PostgreSQL only; who shares a SQLite file is found by polling."""
    mine = me()
    scheduler = register(engine, mine, "scheduler")
    register(engine, mine, "worker")
    assert elsewhere(engine, scheduler) == frozenset()

    other_home = transact(engine, lambda tx: jobs.register(tx, "worker", mine, "/other"))
    other_host = register(engine, ELSEWHERE, "triggerer")
    found = elsewhere(engine, scheduler)
    if engine.dialect.name == "sqlite":
        assert found == frozenset()
        return
    assert found == {"worker", "triggerer"}
    assert elsewhere(engine, other_host) == {"scheduler", "worker"}
    lapse(engine, other_host)  # after an outage everybody's has
    assert elsewhere(engine, scheduler) == {"worker", "triggerer"}
    for job_id in (other_home, other_host):
        transact(engine, partial(jobs.end, job_id=job_id))
    assert elsewhere(engine, scheduler) == frozenset()


def test_a_command_rings_only_where_somebody_lives(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no NOTIFY")
    mine = me()
    arguments = driver_arguments(engine)
    assert arguments is not None

    def heard_of_a_ring() -> list[str]:
        with psycopg.connect(**arguments, autocommit=True) as listener:
            listener.execute("LISTEN roost_scheduler; LISTEN roost_worker")
            with read(engine) as tx:
                jobs.ring_elsewhere(tx, "scheduler", mine.host_id, "/run")
            listener.execute("SELECT 1")
            return [note.channel for note in listener.notifies(timeout=0)]

    register(engine, mine, "scheduler")
    register(engine, ELSEWHERE, "worker")
    assert heard_of_a_ring() == []
    register(engine, ELSEWHERE, "scheduler")
    register(engine, ELSEWHERE, "scheduler")
    assert heard_of_a_ring() == ["roost_scheduler"]
