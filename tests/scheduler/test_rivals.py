"""Two schedulers on one PostgreSQL at the same time: every promise holds, nothing waits on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from roost.models.engine import Tx, is_passing
from roost.models.queries import handoffs
from roost.models.queries.handoffs import PoolRow
from roost.scheduler.loop import LeaseLost
from tests.scheduler.hands import World, dag, deferred, ok, task

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def rivals(database_url: str) -> Iterator[World]:
    """Two schedulers and one worker."""
    world = World(database_url, schedulers=2, parallelism=8)
    try:
        yield world
        world.check()
    finally:
        world.close()


def load(world: World) -> None:
    """Twelve runs of four DAGs that compete for pools and for their limits."""
    world.pool("small", 2)
    world.pool("holding", 3, deferred_percent=100)
    for n in range(4):
        world.store(
            dag(
                f"d{n}",
                task("a", "b c d"),
                task("b", "e", pool="small"),
                task("c", "e", pool="holding"),
                task("d", "e", empty=True),
                task("e"),
                max_active_runs=2,
            )
        )
    for n in range(12):
        world.trigger(f"d{n % 4}")


def unfinished(world: World) -> int:
    return len(world.fetch("SELECT id FROM dag_run WHERE end_date IS NULL"))


@pytest.mark.timeout(120)
def test_two_at_the_same_time(rivals: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take turns as fast as they can, while the hands work; then all is looked at."""
    monkeypatch.setattr("roost.scheduler.steps.adopt._BATCH", 2)  # each takes some of the runs
    load(rivals)
    done = threading.Event()
    errors: list[BaseException] = []

    def schedule(index: int) -> None:
        while not done.is_set():
            try:
                rivals.turn(index)
            except Exception as error:  # a daemon waits and tries again after these
                if not is_passing(error):
                    errors.append(error)
                    return

    threads = [threading.Thread(target=schedule, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(400):
            rivals.end_all(
                {
                    one.id: deferred() if one.task_id == "c" and one.next_method is None else ok()
                    for one in rivals.claim()
                }
            )
            for trigger_id in rivals.pending_triggers():
                rivals.fire_id(trigger_id)
            rivals.clock.advance(1)
            rivals.check()
            if errors or not unfinished(rivals):
                break
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert unfinished(rivals) == 0
    owners = {row.actor for row in rivals.fetch("SELECT DISTINCT actor FROM event_log")}
    assert len({actor for actor in owners if actor.startswith("scheduler")}) == 2


def test_pools_are_locked_once_and_together(rivals: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """H5: who locks a full pool has locked all it changes, so two schedulers cannot deadlock."""
    locked: list[set[str]] = []
    lock, change = handoffs.lock_pools, handoffs.change_pools

    def note_lock(tx: Tx, names: Sequence[str]) -> list[PoolRow]:
        locked[:] = [{*names}]
        return lock(tx, names)

    def see_change(tx: Tx, changes: Mapping[str, int]) -> None:
        assert not locked or locked[0] >= {pool for pool, n in changes.items() if n}
        change(tx, changes)

    monkeypatch.setattr(handoffs, "lock_pools", note_lock)
    monkeypatch.setattr(handoffs, "change_pools", see_change)
    rivals.pool("small", 1)
    rivals.store(dag("d", task("a", pool="small"), task("b", pool="small"), task("c")))
    rivals.trigger("d")
    rivals.turns(0)
    held = {one.task_id: one for one in rivals.claim()}
    rivals.end(held.pop("c"), ok())  # gives a slot of one pool back while the other is full
    rivals.turns(0)
    assert locked
    for _ in range(2):
        rivals.end_all({one: ok() for one in list(rivals.held)})
        rivals.turns(0)
        rivals.claim()
    assert unfinished(rivals) == 0


def test_a_run_that_one_ends_makes_room_for_a_run_of_the_other(rivals: World) -> None:
    """The other is not told; it looks again within two seconds."""
    rivals.store(dag("d", task("a"), max_active_runs=1))
    first = rivals.trigger("d")
    rivals.turns(0)
    second = rivals.trigger("d")
    report = rivals.turns(1)
    assert rivals.run_state(second) == "queued"
    assert report.next_due is not None
    rivals.work()  # scheduler 0 ends its run
    assert rivals.run_state(first) == "success"
    rivals.clock.now = report.next_due
    rivals.turns(1)
    assert rivals.run_state(second) == "running"


def test_a_due_interval_is_created_once_invariant_s12(rivals: World) -> None:
    now = rivals.clock.now
    rivals.store(
        dag("d", task("a", empty=True), schedule="@hourly", start_date=now - 6 * 3600 * 10**6,
            catchup=True)
    )  # fmt: skip
    barrier = threading.Barrier(2)

    def race(index: int) -> None:
        barrier.wait()
        rivals.turns(index)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rivals.turns(0)
    rows = rivals.fetch("SELECT interval_start FROM dag_run ORDER BY id")
    assert len(rows) == len({row.interval_start for row in rows}) == 6


def test_one_that_was_declared_dead_stops_in_the_middle(rivals: World) -> None:
    load(rivals)
    rivals.turn(0)
    rivals.lose_scheduler(0)
    with pytest.raises(LeaseLost):
        rivals.turn(0)
    for _ in range(60):
        rivals.turns(1)
        rivals.end_all(dict.fromkeys((one.id for one in rivals.claim()), ok()))
        rivals.clock.advance(2)
        if not unfinished(rivals):
            break
    assert unfinished(rivals) == 0
