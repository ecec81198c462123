"""Waiting for runs and for tasks in them: no slot, no process, fired by the scheduler (S95)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from roost.models.engine import Tx, is_passing, transact
from roost.models.queries import awaited
from roost.models.states import RunEvent
from roost.models.transitions import move_runs
from roost.support.clock import SECOND
from roost.triggers import DagRunTrigger
from tests.scheduler.hands import OutcomeOf, World, dag, deferred, failed, ok, skipped, task
from tests.support.statements import watching


def until(timeout_s: float | None = None, **wait: Any) -> OutcomeOf:
    """The task defers until runs, or tasks in them, have ended."""
    trigger = DagRunTrigger(**wait)
    _, kwargs = trigger.serialize()
    return deferred(
        timeout_s=timeout_s,
        lane="external",
        key=trigger.external_key,
        source="roost.triggers.runs:DagRunTrigger",
        kwargs=msgspec.Raw(msgspec.json.encode(kwargs)),
    )


@pytest.fixture
def two_schedulers(database_url: str, database_kind: str) -> Iterator[World]:
    """Two schedulers on one database."""
    if database_kind == "sqlite":
        pytest.skip("SQLite admits one scheduler")
    made = World(database_url, schedulers=2)
    yield made
    made.check()
    made.close()


@pytest.fixture
def family(world: World) -> World:
    """A DAG ``d`` with a running task ``wait``, and a DAG ``child``."""
    world.store(dag("child", task("c1", "c2"), task("c2")))
    world.start(task("wait"))
    return world


def event_of(world: World) -> Any:
    """What the resumed task is given."""
    (claimed,) = (one for one in world.claim() if one.task_id == "wait")
    world.end(claimed, ok())
    world.turns()
    return msgspec.json.decode(claimed.next_kwargs or "")["event"]


def test_the_turn_that_ends_the_run_fires(family: World) -> None:
    family.trigger("child", "c")
    family.turns()
    family.work(wait=until(dag_id="child", run_id="c"), c1=ok())
    assert family.states()["wait"] == "deferred"
    assert family.used() == 1  # c2's: who waits holds none
    assert family.turn().sweep_at == family.clock.now + 5 * SECOND
    family.work(c2=ok())  # the clock stands still: it was not a sweep
    assert event_of(family) == {"status": "success", "states": {"c": "success"}}
    assert family.turns().sweep_at is None
    assert not family.schedulers[0].has_work()
    family.check()


def test_a_run_that_ended_before_fires_at_once(family: World) -> None:
    (wait,) = family.claim()
    family.trigger("child", "c")
    family.turns()
    family.work(c1=failed())
    family.schedulers[0]._memory.sweep_at = family.clock.now + 1  # no sweep finds it
    family.end(wait, until(dag_id="child", run_id="c"))
    family.turns()
    assert event_of(family) == {"status": "failed", "states": {"c": "failed"}}


def test_a_task_of_a_run_is_enough(family: World) -> None:
    family.trigger("child", "c")
    family.turns()
    family.work(wait=until(dag_id="child", run_id="c", task_ids=["c1"]), c1=ok())
    assert event_of(family) == {"status": "success", "states": {"c": "running"}}
    assert family.states()["c2"] in ("queued", "running")


def test_a_skipped_task_ends_a_wait_that_says_so(family: World) -> None:
    family.trigger("child", "c")
    family.turns()
    wait = until(dag_id="child", run_id="c", task_ids=["c2"], skipped=["skipped"])
    family.work(wait=wait, c1=skipped())
    assert event_of(family)["status"] == "skipped"


def test_a_run_may_be_named_by_its_logical_date(family: World) -> None:
    key = family.trigger("child", "c")
    (row,) = family.fetch("SELECT logical_date FROM dag_run WHERE id = :k", k=key)
    family.turns()
    family.work(wait=until(dag_id="child", logical_dates=[row.logical_date]), c1=ok())
    family.work(c2=ok())
    assert event_of(family)["status"] == "success"


def test_what_never_comes_is_waited_for_until_the_time_out(family: World) -> None:
    family.work(wait=until(dag_id="child", run_id="never", timeout_s=60))
    for _ in range(3):
        family.clock.advance(6)
        family.turns()
        assert family.states() == {"wait": "deferred"}
    family.clock.advance(60)
    family.turns()
    assert family.states() == {"wait": "failed"}


def end_elsewhere(world: World, run_key: int) -> None:
    """The run comes to its end without a turn of this scheduler."""

    def step(tx: Tx) -> None:
        move_runs(tx, RunEvent.START, [run_key], actor="other")
        move_runs(tx, RunEvent.SUCCEED, [run_key], actor="other")

    world.transact(step)


def test_a_deleted_run_ends_a_wait_that_needs_it(family: World) -> None:
    key = family.trigger("child", "c", delay_s=3600)
    family.work(wait=until(dag_id="child", run_id="c", must_exist=True))
    family.clock.advance(6)
    family.turns()
    assert family.states() == {"wait": "deferred"}
    family.execute("DELETE FROM event_log WHERE dag_run_id = :k", k=key)
    family.execute("DELETE FROM dag_run WHERE id = :k", k=key)
    family.schedulers[0].forget()
    family.clock.advance(6)
    family.turns()
    assert event_of(family)["status"] == "gone"


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_what_others_did_is_seen_by_a_sweep(family: World, set_back_s: float) -> None:
    """Nothing of it goes through a turn of this scheduler. A clock that is set back puts no sweep
    off."""
    family.store(dag("bare"))
    key = family.trigger("bare", "c", delay_s=3600)
    family.work(wait=until(dag_id="bare", run_id="c"))
    family.clock.advance(6)
    family.turns()
    end_elsewhere(family, key)
    assert not family.schedulers[0].has_work()
    family.clock.advance(5 - set_back_s)
    assert family.schedulers[0].has_work()
    family.turns()
    assert event_of(family)["status"] == "success"


def test_a_scheduler_that_forgets_goes_on_waiting(family: World) -> None:
    family.trigger("child", "c")
    family.turns()
    family.work(wait=until(dag_id="child", run_id="c"), c1=ok())
    (c2,) = family.claim()
    family.end(c2, ok())
    family.schedulers[0].forget()  # as after a crash between any two turns
    family.turns()
    assert event_of(family)["status"] == "success"


def test_a_trigger_that_cannot_be_read_fails_its_task_only(family: World) -> None:
    bad = deferred(
        lane="external",
        key="roost:run/child",
        source="roost.triggers.runs:DagRunTrigger",
        kwargs=msgspec.Raw(b'{"dag_id":5}'),
    )
    family.work(wait=bad)
    assert family.states() == {"wait": "failed"}
    assert "cannot be read" in (family.reasons("fail")[0] or "")


def test_waits_for_others_are_left_alone(family: World) -> None:
    family.work(wait=deferred(lane="external", key="roost:run/child", source="mine:Trigger"))
    family.trigger("child", "c")
    family.turns()
    family.work()
    family.clock.advance(60)
    family.turns()
    assert family.states()["wait"] == "deferred"


def test_many_are_swept_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.scheduler.steps.awaited._PAGE", 2)
    world.store(dag("bare"))
    key = world.trigger("bare", "c", delay_s=3600)
    tasks = [task(f"w{n}") for n in range(5)]
    world.start(*tasks)
    world.work(**{one.task_id: until(dag_id="bare", run_id="c") for one in tasks})
    end_elsewhere(world, key)
    for _ in range(4):
        world.clock.advance(5)
        world.turns()
    assert set(world.states().values()) == {"queued"}


def test_two_schedulers_each_with_one_of_the_runs(two_schedulers: World) -> None:
    """The one that ends the run writes the event, the other settles it."""
    world = two_schedulers
    world.store(dag("child", task("c1")), dag("d", task("wait")))
    world.trigger("d", "p")
    world.turns(0)
    world.trigger("child", "c")
    world.turns(1)
    claimed = {one.task_id: one for one in world.claim()}
    world.end(claimed["wait"], until(dag_id="child", run_id="c"))
    world.turns(0)
    assert world.states()["wait"] == "deferred"
    world.end(claimed["c1"], ok())
    assert world.turn(1).told_others
    world.turns(0)
    assert event_of(world)["status"] == "success"


def test_two_schedulers_at_once_lose_no_wait(two_schedulers: World) -> None:
    """Runs and those who wait for them are shared out by chance, and end in any order."""
    world = two_schedulers
    number = 12
    world.store(dag("p", task("wait")), dag("child", task("c1", "c2"), task("c2")))
    for n in range(number):
        world.trigger("p", f"r{n}")
        world.trigger("child", f"r{n}")
    errors: list[BaseException] = []
    done = threading.Event()

    def schedule(index: int) -> None:
        while not done.is_set():
            try:
                world.turn(index)
            except Exception as error:  # a daemon waits and tries again after these
                if not is_passing(error):
                    errors.append(error)
                    return

    threads = [threading.Thread(target=schedule, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            claimed = world.claim()
            waits = [one for one in claimed if one.task_id == "wait" and one.next_method is None]
            outcomes: dict[int, OutcomeOf] = dict.fromkeys((one.id for one in claimed), ok())
            outcomes |= {one.id: until(dag_id="child", run_id=one.run_id) for one in waits}
            world.end_all(outcomes)
            world.clock.advance(1)
            if errors or not world.fetch("SELECT 1 FROM dag_run WHERE end_date IS NULL"):
                break
            time.sleep(0.01)  # lets the two take turns; nothing is asserted about it
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    rows = world.fetch("SELECT dag_id, state, count(*) AS n FROM dag_run GROUP BY dag_id, state")
    assert sorted((r.dag_id, r.state, r.n) for r in rows) == [
        ("child", "success", number),
        ("p", "success", number),
    ]
    resumed = world.fetch("SELECT ti_id FROM event_log WHERE event = 'resume'")
    assert len(resumed) == len({row.ti_id for row in resumed}) == number


def test_an_event_is_written_once(family: World) -> None:
    family.trigger("child", "c")
    family.work(wait=until(dag_id="child", run_id="c"))
    (row,) = family.fetch("SELECT id FROM trigger")
    event = awaited.Fired(row.id, "fired", "null")
    assert transact(family.engine, lambda tx: awaited.fire(tx, [event], 1)) == {row.id}
    assert transact(family.engine, lambda tx: awaited.fire(tx, [event], 1)) == set()


def test_a_thousand_waits_for_one_run_are_woken_in_one_turn(database_url: str) -> None:
    """N1: they wait as rows, and no statement is sent for each of them."""
    world = World(database_url, parallelism=2_000)
    world.pool("default_pool", 2_000)
    world.store(dag("child", task("c1")))
    world.trigger("child", "c")
    names = [f"w{number}" for number in range(1_000)]
    world.start(*(task(name) for name in names), max_active_tasks=2_000)
    wait = until(dag_id="child", run_id="c")
    (child,) = [one for one in world.claim() if one.task_id == "c1"]
    waits = [number for number in world.held if number != child.id]
    assert len(waits) == 1_000
    world.end_all(dict.fromkeys(waits, wait))
    world.turns()
    assert {world.states()[name] for name in names} == {"deferred"}
    world.end(child, ok())
    sent: list[str] = []
    with watching(lambda text, _: sent.append(text)):
        world.turn()
    assert world.fetch("SELECT count(*) FROM trigger_event")[0][0] == 1_000
    assert len(sent) < 100
    sent.clear()
    with watching(lambda text, _: sent.append(text)):
        world.turns()
    assert {world.states()[name] for name in names} <= {"scheduled", "queued"}
    assert len(sent) < 200
    world.check()
    world.close()
