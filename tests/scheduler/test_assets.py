"""Assets (H16): an event for each success, a run when all that a DAG waits for has events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.model import AssetCondition, SerializedDag
from roost.models.queries import assets
from roost.models.queries.look import Look
from roost.models.queries.look import look as look_first
from roost.models.sql import Tx
from roost.models.state_edits import clear
from roost.scheduler import loop
from roost.scheduler.steps.assets import satisfied
from tests.scheduler.hands import World, dag, deferred, failed, ok, task
from tests.support.reused import empty

A, B = AssetCondition("asset", "a"), AssetCondition("asset", "b")
BOTH = AssetCondition("all", parts=[A, B])
EITHER = AssetCondition("any", parts=[A, B])


def waits(name: str, condition: AssetCondition, **knobs: Any) -> SerializedDag:
    return dag(name, task("t"), assets=condition, **knobs)


def runs_of(world: World, dag_id: str) -> list[Any]:
    return world.fetch("SELECT * FROM dag_run WHERE dag_id = :d ORDER BY id", d=dag_id)


def make(world: World, dag_id: str) -> None:
    """A run of a DAG that makes something, to its end."""
    world.trigger(dag_id)
    world.turns()
    while world.work():
        pass


def test_a_success_starts_the_dags_that_wait_for_it(world: World) -> None:
    world.store(dag("make", task("m", outlets=["a"])), waits("one", A), waits("other", B))
    make(world, "make")
    (run,) = runs_of(world, "one")
    assert (run.run_type, run.logical_date, run.state) == ("asset_triggered", None, "success")
    assert not runs_of(world, "other")
    (event,) = world.fetch("SELECT e.* FROM asset_event e JOIN asset_use u ON u.event_id = e.id")
    assert (event.uri, event.dag_id, event.task_id) == ("a", "make", "m")
    world.check()


def test_an_edit_that_comes_with_an_event_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D10: a turn looks, waits for the user's transaction, and then makes a run for the event."""
    world.store(dag("d", task("w")), waits("one", A))
    world.trigger("d")
    world.turns()
    world.work(w=deferred())
    (ti_id,) = world.ids("w")
    world.transact(lambda tx: assets.add_events(tx, [assets.NewEvent("a")]))
    late = [ti_id]

    def look(tx: Tx, job_id: int, *, lock: bool = True) -> Look | None:
        seen = look_first(tx, job_id, lock=lock)
        if lock and late:
            clear(tx, [late.pop()], actor="user")
        return seen

    monkeypatch.setattr(loop, "look", look)
    world.turns()
    assert runs_of(world, "one")
    assert world.row("w").try_number == 2
    world.check()


def test_a_failure_makes_nothing(world: World) -> None:
    world.store(dag("make", task("m", outlets=["a"], retries=1)), waits("one", A))
    world.trigger("make")
    world.turns()
    world.work(m=failed())
    assert not world.fetch("SELECT * FROM asset_event")
    world.clock.advance(600)
    world.turns()
    world.work(m=ok())
    assert len(runs_of(world, "one")) == 1


def test_all_of_them_or_any_of_them(world: World) -> None:
    world.store(
        dag("make_a", task("m", outlets=["a"])),
        dag("make_b", task("m", outlets=["b"])),
        waits("both", BOTH),
        waits("either", EITHER),
    )
    make(world, "make_a")
    make(world, "make_a")
    assert (len(runs_of(world, "both")), len(runs_of(world, "either"))) == (0, 2)
    make(world, "make_b")
    assert (len(runs_of(world, "both")), len(runs_of(world, "either"))) == (1, 3)
    used = world.fetch(
        "SELECT u.event_id FROM asset_use u JOIN dag_run r ON r.id = u.dag_run_id "
        "WHERE r.dag_id = 'both'"
    )
    assert len(used) == 3  # both events of a went into the run
    make(world, "make_b")
    assert len(runs_of(world, "both")) == 1


def test_a_task_without_a_body_makes_its_outlets_too(world: World) -> None:
    world.store(dag("make", task("m", outlets=["a"], empty=True)), waits("one", A))
    make(world, "make")
    assert len(runs_of(world, "one")) == 1


def test_a_paused_dag_is_not_started_then_nor_later(world: World) -> None:
    world.store(dag("make", task("m", outlets=["a"])), waits("one", A))
    world.pause("one")
    make(world, "make")
    world.pause("one", False)
    world.turns()
    assert not runs_of(world, "one")


def test_an_event_by_hand(world: World) -> None:
    world.store(waits("one", A))
    world.transact(partial(assets.add_events, events=[assets.NewEvent("a")]))
    assert world.schedulers[0].has_work()
    world.turns()
    assert len(runs_of(world, "one")) == 1
    assert not world.schedulers[0].has_work()


def test_what_a_dag_does_not_wait_for_any_more_is_forgotten(world: World) -> None:
    world.store(dag("make", task("m", outlets=["a"])), waits("both", BOTH))
    make(world, "make")
    world.store(waits("both", B))
    world.transact(partial(assets.add_events, events=[assets.NewEvent("b")]))
    world.turns()
    (run,) = runs_of(world, "both")
    used = world.fetch("SELECT * FROM asset_use WHERE dag_run_id = :r", r=run.id)
    assert len(used) == 1


@pytest.fixture
def rivals(postgresql_url: str) -> Iterator[World]:
    """Two schedulers."""
    empty(postgresql_url)
    made = World(postgresql_url, schedulers=2)
    yield made
    made.check()
    made.close()


def test_two_schedulers_with_one_half_each_start_one_run(rivals: World) -> None:
    rivals.store(waits("both", BOTH))
    for uri in ("a", "b"):
        rivals.transact(partial(assets.add_events, events=[assets.NewEvent(uri)]))
        rivals.turns(0)
        rivals.turns(1)
    assert len(runs_of(rivals, "both")) == 1


_CONDITIONS = st.recursive(
    st.sampled_from("abc").map(lambda uri: AssetCondition("asset", uri)),
    lambda inner: st.builds(
        lambda op, parts: AssetCondition(op, parts=parts),
        st.sampled_from(["all", "any"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(_CONDITIONS, st.sets(st.sampled_from("abc")))
def test_a_condition_is_what_its_words_say(condition: AssetCondition, there: set[str]) -> None:
    """H16: the text that listings show, read as an expression, has the same truth."""
    words = condition.words().replace("&", "and").replace("|", "or")
    names = {name: name in there for name in "abc"}
    assert satisfied(condition, there) is eval(words, {}, names)  # noqa: S307 - our own text
