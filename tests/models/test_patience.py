"""How long a daemon waits for a database that is away, and what others may conclude from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from roost.models.engine import open_engine, transact
from roost.models.queries import jobs
from roost.scheduler import daemon
from roost.scheduler.chores.rescue import Rescued, Survey
from roost.support.service import LONGEST_ATTEMPT_S, LONGEST_WAIT_S, Calm, Patience
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
    with_ = patience()
    run(clock.step(0.01), with_)
    assert with_.failed_at == float("-inf")
    run(clock.step(0.01, until=clock.now + 1), with_)
    assert with_.failed_at > 1000


@pytest.mark.parametrize(
    ("server_up_s", "judges_after_s"),
    [
        pytest.param(3600.0, LONGEST_WAIT_S + LONGEST_ATTEMPT_S, id="all-that-live-have-renewed"),
        pytest.param(1.0, jobs.LEASE_TTL_S - 1.0, id="two-outages-in-a-row"),
    ],
)
def test_a_newcomer_knows_of_no_outage_and_gives_others_time(
    clock: Clock,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    server_up_s: float,
    judges_after_s: float,
) -> None:
    """invariant S15: it waits for those who do; of two in a row the server's start tells."""
    monkeypatch.setattr(jobs, "server_up_s", lambda _tx: server_up_s)
    engine = open_engine(database_url)
    database = Database(engine)
    transact(engine, database.meet)
    clock.now += judges_after_s - 0.1
    assert database.calm.left_s() > 0
    clock.now += 0.2
    assert database.calm.left_s() == 0
    engine.dispose()


def calm(clock: Clock, with_: Patience) -> Calm:
    """That of a daemon which has lived for long."""
    found = Calm(with_, grace_s=16, slow_s=4)
    clock.now += 3600
    assert found.left_s() == 0
    return found


def test_who_joins_anew_forgets_no_outage(clock: Clock) -> None:
    """invariant S15: a renewal that waited may have cost us our own lease, and others theirs."""
    judge = calm(clock, patience())
    with judge.step():
        clock.now += 5
    judge.join(server_up_s=7200)
    assert judge.left_s() == 16


def test_several_steps_at_once_wait_each_by_itself(clock: Clock) -> None:
    """invariant S15."""
    judge = calm(clock, patience())
    with judge.step():
        clock.now += 3
        with judge.step():
            clock.now += 2
            assert judge.left_s() == 16
        assert judge.left_s() == 16
    clock.now += 16
    assert judge.left_s() == 0


def test_leases_are_judged_some_time_after_an_outage(clock: Clock) -> None:
    """invariant S15."""
    with_ = patience()
    judge = calm(clock, with_)
    run(clock.step(0.01, until=clock.now + 60), with_)
    assert 10 < judge.left_s() <= 16
    clock.now += 16
    assert judge.left_s() == 0


def test_a_renewal_of_our_own_that_waits_says_that_others_wait(clock: Clock) -> None:
    """invariant S15: as for SQLite's one writer, or a connection that hangs."""
    judge = calm(clock, patience())
    with judge.step():
        clock.now += 5
        assert judge.left_s() == 16
    assert judge.left_s() == 16
    clock.now += 17
    with judge.step():
        clock.now += 1
        assert judge.left_s() == 0
    assert judge.left_s() == 0


def test_a_rescue_that_an_outage_interrupts_judges_nobody_when_it_is_over(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """invariant S15: each attempt asks whether it may; all leases are over by then."""

    class Enough(Exception):
        pass

    asked: list[bool] = []

    def look(_tx: Any, _me: Any, *, judge_leases: bool) -> Survey:
        asked.append(judge_leases)
        match len(asked):
            case 1:
                clock.now += 30
                raise ConnectionError("away")
            case 2:
                return Survey([], True, 0.0)
            case _:
                raise Enough

    def save(_tx: Any, _me: Any, *, judge_leases: bool) -> Rescued:
        asked.append(judge_leases)
        raise Enough

    monkeypatch.setattr(daemon, "read", lambda _engine: nullcontext())
    monkeypatch.setattr(daemon, "transact", lambda _engine, step: step(None))
    monkeypatch.setattr(daemon, "survey", look)
    monkeypatch.setattr(daemon, "rescue", save)
    scheduler = daemon.SchedulerDaemon.__new__(daemon.SchedulerDaemon)
    with_ = patience()
    vars(scheduler).update(_patience=with_, _calm=calm(clock, with_), _engine=None, _me=None)
    group: Any = None  # it watches nobody here
    with pytest.raises(Enough):
        anyio.run(scheduler._rescue, group)
    assert asked == [True, False, False]
