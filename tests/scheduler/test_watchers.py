"""Watchers of assets in the database: shared, claimed, removed, and what they bring (D13)."""

from __future__ import annotations

from typing import Any

from roost.dag.model import AssetCondition, SerializedDag, SerializedWatcher
from roost.models.queries import edits, triggers, watchers
from roost.models.queries.deletion import delete_dag
from roost.models.queries.watchers import Sighting
from roost.scheduler.chores.watchers import sync_watchers
from tests.scheduler.hands import World, dag, task


def watched(dag_id: str, uri: str = "a", name: str = "w", **fields: Any) -> SerializedDag:
    """A DAG that waits for an asset with a watcher."""
    kwargs = fields.pop("kwargs", {"path": "/x"})
    one = SerializedWatcher(uri, name, "Files", "mine:Files", kwargs, **fields)
    return dag(dag_id, task("t"), assets=AssetCondition("asset", uri), watchers=[one])


def rows(world: World) -> list[Any]:
    return world.fetch("SELECT * FROM trigger ORDER BY id")


def claim(world: World) -> tuple[int, dict[int, int]]:
    """A triggerer, and the epochs of what it claims."""
    job_id = world.register("triggerer")
    return job_id, world.transact(lambda tx: triggers.claim(tx, job_id, 100))


def see(world: World, job_id: int, *seen: Sighting) -> set[tuple[int, int]]:
    return world.transact(lambda tx: watchers.store(tx, job_id, seen))


def asset_events(world: World) -> list[tuple[str, str, str]]:
    found = world.fetch("SELECT uri, extra, watcher FROM asset_event ORDER BY id")
    return [(row.uri, row.extra, row.watcher) for row in found]


def test_equal_watchers_share_one_trigger(world: World) -> None:
    """D13: of the same class, arguments and queue; another argument or queue is another one."""
    world.store(watched("one"), fileloc="one.py")
    world.store(watched("two", "b", "other"), fileloc="two.py")
    (row,) = rows(world)
    assert (row.lane, row.ti_id, row.classpath) == ("poll", None, "Files")
    world.store(watched("three", kwargs={"path": "/y"}), fileloc="three.py")
    world.store(watched("four", queue="far"), fileloc="four.py")
    assert [one.queue for one in rows(world)] == ["default", "default", "far"]
    job_id, epochs = claim(world)
    assert see(world, job_id, Sighting(row.id, epochs[row.id], 1, '{"n": 1}')) == {(row.id, 1)}
    assert asset_events(world) == [("a", '{"n": 1}', "w"), ("b", '{"n": 1}', "other")]
    world.check()


def test_a_watcher_is_removed_when_no_unpaused_dag_asks_for_it(world: World) -> None:
    """D13: by a pause, by an edit of the file, by the end of a DAG; and it comes back."""
    world.store(watched("one"), fileloc="one.py")
    world.store(watched("two"), fileloc="two.py")
    (first,) = rows(world)
    world.transact(lambda tx: edits.pause_dag(tx, "one", True))
    assert [row.id for row in rows(world)] == [first.id]
    world.store(dag("two", task("t"), assets=AssetCondition("asset", "a")), fileloc="two.py")
    assert rows(world) == []
    world.transact(lambda tx: edits.pause_dag(tx, "one", False))
    (again,) = rows(world)
    assert again.id > first.id and again.watcher_hash == first.watcher_hash
    world.transact(lambda tx: delete_dag(tx, "one"))
    assert rows(world) == []
    world.check()


def test_changed_arguments_change_the_trigger(world: World) -> None:
    """D13: the old one goes, with its claim; a new one waits to be claimed."""
    world.store(watched("one"))
    job_id, epochs = claim(world)
    ((old, epoch),) = epochs.items()
    world.store(watched("one", kwargs={"path": "/y"}))
    (row,) = rows(world)
    assert row.id != old and row.job_id is None
    assert see(world, job_id, Sighting(old, epoch, 1, "{}")) == set()
    assert asset_events(world) == []


def test_an_event_starts_the_runs_that_wait_for_it_and_the_watcher_stays(world: World) -> None:
    """D13: its payload is the event's extra; the trigger survives, and brings the next."""
    world.store(watched("one"))
    job_id, epochs = claim(world)
    ((id_, epoch),) = epochs.items()
    for number in (1, 2):
        see(world, job_id, Sighting(id_, epoch, number, f'{{"n": {number}}}'))
        world.turns()
        while world.work():
            pass
        found = world.fetch("SELECT state FROM dag_run")
        assert [row.state for row in found] == ["success"] * number
    assert [row.id for row in rows(world)] == [id_]
    world.check()


def test_events_are_stored_once(world: World) -> None:
    """D13: by number under one claim, by key for good, whoever brings them again."""
    world.store(watched("one"))
    job_id, epochs = claim(world)
    ((id_, epoch),) = epochs.items()
    for _ in range(2):  # the answer of the commit was lost
        stored = see(world, job_id, Sighting(id_, epoch, 1, "{}"), Sighting(id_, epoch, 2, "{}"))
        assert stored == {(id_, 1), (id_, 2)}
    assert len(asset_events(world)) == 2
    see(world, job_id, Sighting(id_, epoch, 3, "{}", "k"), Sighting(id_, epoch, 4, "{}", "k"))
    world.transact(lambda tx: triggers.release(tx, job_id))
    other, claimed = claim(world)
    assert claimed == {id_: epoch + 1}
    see(world, other, Sighting(id_, epoch + 1, 5, "{}", "k"))
    assert len(asset_events(world)) == 3


def test_a_stale_claim_brings_nothing(world: World) -> None:
    """D13, invariant S15: who has lost its claim or its lease stores neither event nor trouble."""
    world.store(watched("one"))
    job_id, epochs = claim(world)
    ((id_, epoch),) = epochs.items()
    world.transact(lambda tx: triggers.release(tx, job_id))
    other, _ = claim(world)
    told = Sighting(id_, epoch, 1, "{}"), Sighting(id_, epoch, 2, trouble="ill")
    assert see(world, job_id, *told) == set() == see(world, other, *told)
    world.execute("UPDATE job SET ended_at = 1 WHERE id = :id", id=other)
    assert see(world, other, Sighting(id_, epoch + 1, 3, "{}")) == set()
    assert asset_events(world) == [] and rows(world)[0].trouble is None


def test_a_trouble_is_shown_until_the_next_event(world: World) -> None:
    """D13: the row says what is wrong."""
    world.store(watched("one"))
    job_id, epochs = claim(world)
    ((id_, epoch),) = epochs.items()
    see(world, job_id, Sighting(id_, epoch, 1, trouble="the broker is closed"))
    assert rows(world)[0].trouble == "the broker is closed"
    see(world, job_id, Sighting(id_, epoch, 2, "{}"))
    assert rows(world)[0].trouble is None


def test_watchers_are_claimed_after_tasks(world: World) -> None:
    """D16: callbacks, then triggers of tasks by weight, then watchers."""
    world.store(watched("one"))
    (row,) = rows(world)
    lowest = -(1 << 31)  # the highest weight that a task may have has the lowest rank
    assert row.rank > (1 << 31) > lowest


def test_the_chore_mends_what_was_missed(world: World) -> None:
    """D13: two changes that did not see each other leave one trigger too few, or one too many."""
    world.store(watched("one"))
    world.execute("DELETE FROM trigger")
    assert sync_watchers(world.engine) == 1 and len(rows(world)) == 1
    world.execute("UPDATE dag SET is_paused = :yes", yes=True)
    assert sync_watchers(world.engine) == 1 and rows(world) == []
    assert sync_watchers(world.engine) == 0
