"""Events of assets go after a stated time, but for what somebody still needs (H16, D13)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from roost.models.queries import assets
from roost.models.queries.deletion import delete_dag
from roost.models.queries.watchers import Sighting
from roost.scheduler.chores.asset_events import prune_asset_events
from roost.support.clock import SECOND, now_us
from tests.scheduler.hands import World, dag, task
from tests.scheduler.test_assets import BOTH, A, make, runs_of, waits
from tests.scheduler.test_watchers import claim, rows, see, watched

DAY = 86_400 * SECOND


def emit(world: World, *uris: str) -> None:
    world.transact(partial(assets.add_events, events=[assets.NewEvent(uri) for uri in uris]))


def age(world: World, days: int = 100) -> None:
    """Let all that has happened have happened so long ago."""
    then = now_us() - days * DAY
    world.execute("UPDATE asset_event SET at = :then", then=then)
    world.execute("UPDATE dag_run SET end_date = :then WHERE end_date IS NOT NULL", then=then)


def prune(world: World, days: int = 90, batch: int = 1_000) -> int:
    return prune_asset_events(world.engine, days * DAY, batch)


def events(world: World) -> list[Any]:
    return world.fetch("SELECT * FROM asset_event ORDER BY id")


@pytest.mark.parametrize("batch", [1, 3, 1_000])
def test_old_events_that_nobody_needs_go(world: World, batch: int) -> None:
    """All but the newest of each asset, in however many batches; young ones stay."""
    emit(world, *"aaaaab")
    world.turns()
    assert prune(world) == 0
    age(world)
    emit(world, "a")
    world.turns()
    assert prune(world, days=0) == 0, "0 is for ever"
    assert prune(world, days=101) == 0
    assert prune(world, batch=batch) == 5
    assert [row.uri for row in events(world)] == ["b", "a"]
    assert prune(world) == 0


def test_what_no_scheduler_has_taken_up_stays(world: World) -> None:
    """H16: an event may lie as long as no scheduler runs; then it starts its run."""
    world.store(waits("one", A))
    emit(world, "a", "a")
    age(world)
    assert prune(world) == 0
    world.turns()
    (run,) = runs_of(world, "one")
    assert len(world.fetch("SELECT * FROM asset_use WHERE dag_run_id = :r", r=run.id)) == 2


def test_what_a_dag_still_waits_with_stays(world: World) -> None:
    """H16: however late the other half comes, the run has all events of the first."""
    world.store(waits("both", BOTH), waits("one", A))
    emit(world, "a", "a", "a")
    world.turns()
    while world.work():
        pass
    age(world)
    assert prune(world) == 0
    emit(world, "b")
    world.turns()
    (run,) = runs_of(world, "both")
    used = world.transact(lambda tx: assets.used_by(tx, "both", run.run_id))
    assert [event.uri for event in used] == ["a", "a", "a", "b"]


def test_events_of_a_run_stay_until_it_has_ended_for_so_long(world: World) -> None:
    """A run that goes on reads them, and one that is cleared; later they go, with their use."""
    world.store(dag("make", task("m", outlets=["a"])), waits("one", A))
    emit(world, "a")
    world.turns()
    (run,) = runs_of(world, "one")
    emit(world, "a")
    age(world)
    assert prune(world) == 0, "it has not ended"
    while world.work():
        pass
    assert {one.state for one in runs_of(world, "one")} == {"success"}
    world.execute("UPDATE dag_run SET end_date = :now", now=now_us() - DAY)
    assert prune(world) == 0, "it has ended a day ago"
    age(world)
    assert prune(world) == 1
    assert not world.fetch("SELECT * FROM asset_use WHERE dag_run_id = :r", r=run.id)
    assert len(world.fetch("SELECT * FROM asset_use")) == 1, "the newest event, of the other run"
    make(world, "make")
    assert len(runs_of(world, "one")) == 3
    world.check()


def test_what_was_seen_is_known_while_it_is_watched_for(world: World) -> None:
    """D13: a file that lies there for longer than that starts no second run."""
    world.store(watched("one"))
    (row,) = rows(world)
    job_id, epochs = claim(world)
    epoch = epochs[row.id]
    see(world, job_id, *(Sighting(row.id, epoch, n, '{"n": 1}', key=f"k{n}") for n in (1, 2, 3)))
    see(world, job_id, Sighting(row.id, epoch, 4, '{"n": 1}'), Sighting(row.id, epoch, 5, "{}"))
    world.turns()
    while world.work():
        pass
    age(world)
    assert prune(world) == 4
    assert [(one.extra, one.ref is not None) for one in events(world)] == [("{}", True)] * 4
    assert prune(world) == 0
    see(world, job_id, Sighting(row.id, epoch, 6, '{"n": 1}', key="k1"))
    assert len(events(world)) == 4, "it is known"
    world.transact(lambda tx: delete_dag(tx, "one"))
    assert prune(world) == 3
