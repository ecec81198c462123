"""How long a daemon waits for a database that is away, and what others may conclude from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from sqlalchemy import Engine

from roost.models.engine import open_engine, transact
from roost.models.queries import jobs
from roost.support.service import LONGEST_ATTEMPT_S, LONGEST_WAIT_S, Patience
from roost.triggerer.database import Database


class Clock:
    """Moves only when somebody sleeps or a step takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        monkeypatch.setattr("roost.support.service.time.monotonic", lambda: self.now)
        monkeypatch.setattr("roost.support.service.anyio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def step(self, takes: float, until: float = 0.0) -> Callable[[], float]:
        """A step that takes so long, and fails before a moment."""

        def step() -> float:
            self.now += takes
            if self.now < until:
                raise ConnectionError("away")
            return self.now

        return step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def patience() -> Patience:
    return Patience(lambda error: isinstance(error, ConnectionError))


def run(step: Callable[[], Any], with_: Patience) -> Any:
    return anyio.run(with_.until_done, step)


def test_a_lease_outlives_the_longest_wait_invariant_s15(clock: Clock) -> None:
    """After an outage of any length it is renewed before anybody may judge it."""
    connect_s = 5.0  # what a vain attempt to connect may take
    back_at = clock.now + 3600
    renewed_at = run(clock.step(0.01, until=back_at), patience())
    assert max(clock.sleeps) <= LONGEST_WAIT_S
    assert renewed_at - back_at + connect_s < jobs.LEASE_TTL_S


def test_a_failure_is_remembered(clock: Clock) -> None:
    calm = patience()
    run(clock.step(0.01), calm)
    assert calm.failed_at == float("-inf")
    run(clock.step(0.01, until=clock.now + 1), calm)
    assert calm.failed_at > 1000


def newcomer(engine: Engine) -> Database:
    database = Database(engine)
    transact(engine, database.meet)
    return database


def test_a_newcomer_knows_of_no_outage_and_waits_for_those_who_do(
    clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """invariant S15: all that live have renewed before it takes a lease for lapsed."""
    monkeypatch.setattr(jobs, "server_up_s", lambda _tx: 3600.0)
    engine = open_engine(database_url)
    database = newcomer(engine)
    clock.now += LONGEST_WAIT_S + LONGEST_ATTEMPT_S - 0.1
    assert clock.now - database.failed_at < jobs.LEASE_TTL_S
    clock.now += 0.2
    assert clock.now - database.failed_at > jobs.LEASE_TTL_S
    engine.dispose()


def test_a_newcomer_gives_as_long_as_others_after_a_start_of_the_server(
    clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """invariant S15: two outages in a row may be over before it comes; the server tells of them."""
    monkeypatch.setattr(jobs, "server_up_s", lambda _tx: 1.0)
    engine = open_engine(database_url)
    database = newcomer(engine)
    clock.now += jobs.LEASE_TTL_S - 1.1
    assert clock.now - database.failed_at < jobs.LEASE_TTL_S
    clock.now += 0.2
    assert clock.now - database.failed_at > jobs.LEASE_TTL_S
    engine.dispose()
