"""What `tasks why` says of the line is what the scheduler's next turn does (H4, H5, S39-S41).

In any world: scheduled = executable + the sum of blocked by reason, each instance in exactly one
bucket; and those that are called executable are queued by the next turn, nobody else.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.cli.snapshot import classify_line
from roost.dag.model import Length, SerializedDag, SerializedExpand
from roost.models.engine import read
from roost.scheduler.line import Reason
from tests.scheduler.hands import World, dag, deferred, ok, task
from tests.support.reused import empty

_POOLS = ("default_pool", "small", "holding", "missing")
_FEW = st.sampled_from([None, None, 1, 2])


@st.composite
def dags(draw: st.DrawFn, dag_id: str) -> SerializedDag:
    tasks = [
        task(
            f"t{number}",
            f"t{number + 1}" if draw(st.integers(0, 4)) == 0 and number < 5 else "",
            pool=draw(st.sampled_from(_POOLS)),
            pool_slots=draw(st.integers(1, 3)),
            priority_weight=draw(st.integers(-2, 5)),
            max_active_tis_per_dag=draw(_FEW),
            max_active_tis_per_dagrun=draw(_FEW),
        )
        for number in range(6)
    ]
    return dag(dag_id, *tasks, max_active_tasks=draw(st.integers(1, 5)))


def predicted(world: World, number: int) -> dict[int, list[Reason]]:
    scheduler = world.schedulers[number]
    with read(world.engine) as tx:
        return classify_line(tx, scheduler.job_id, world.parallelism)


def waiting(world: World, number: int) -> set[int]:
    rows = world.fetch(
        "SELECT i.id FROM task_instance i JOIN dag_run r ON r.id = i.dag_run_id "
        "WHERE i.state = 'scheduled' AND r.job_id = :j",
        j=world.schedulers[number].job_id,
    )
    return {row.id for row in rows}


def compare(world: World, number: int) -> None:
    """Foretell one turn, take it, and compare."""
    found = predicted(world, number)
    assert set(found) == waiting(world, number)
    goes = {ti_id for ti_id, reasons in found.items() if not reasons}
    kinds = [reasons[0].kind for reasons in found.values() if reasons]
    assert len(goes) + len(kinds) == len(found)
    assert "behind" not in kinds
    report = world.turn(number)
    assert {handoff.ti_id for handoff in report.handoffs} == goes
    world.check()


def live(world: World, data: st.DataObject) -> None:
    """Something runs, ends and defers; then all is settled."""
    world.claim(data.draw(st.integers(0, 4)))
    ends: dict[int, Any] = {
        id_: data.draw(st.sampled_from([ok(), deferred()]))
        for id_ in sorted(world.held)
        if data.draw(st.booleans())
    }
    world.end_all(ends)
    for trigger_id in world.pending_triggers():
        if data.draw(st.booleans()):
            world.fire_id(trigger_id)
    for number in range(len(world.schedulers)):
        world.turns(number)


@pytest.mark.timeout(180)
def test_what_is_foretold_is_done_h4_h5(database_url: str, database_kind: str) -> None:
    schedulers = 1 if database_kind == "sqlite" else 2

    @settings(
        max_examples=30 if schedulers == 1 else 5,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(first=dags("one"), second=dags("two"), data=st.data())
    def holds(first: SerializedDag, second: SerializedDag, data: st.DataObject) -> None:
        empty(database_url)
        world = World(database_url, schedulers=schedulers, parallelism=4)
        try:
            world.pool("small", data.draw(st.integers(0, 2)))
            world.pool("holding", 2, deferred_percent=data.draw(st.sampled_from([50, 100])))
            world.store(first, second)
            for _ in range(data.draw(st.integers(1, 4))):
                world.trigger(data.draw(st.sampled_from(["one", "two"])))
                world.turns(data.draw(st.integers(0, schedulers - 1)))
            for _ in range(3):
                live(world, data)
                world.pool("small", data.draw(st.integers(0, 4)))
                world.pool("holding", data.draw(st.integers(0, 4)))
                world.pause("one", data.draw(st.booleans()))
                for number in range(schedulers):
                    compare(world, number)
        finally:
            world.close()

    holds()


def test_each_limit_is_named_with_its_numbers_s39_s41_h5(world: World) -> None:
    """One reason each, the first in its way; and the place in line counts who is ahead."""
    world.pool("p", 2)
    world.pool("wide", 9)
    world.start(
        task("ahead", pool="p", pool_slots=2, priority_weight=9),
        task("full", pool="p", priority_weight=8),
        task("next", pool="p", priority_weight=7),
        task("big", pool="p", pool_slots=3),
        task("gone", pool="nowhere"),
        task("goes", pool="wide"),
        max_active_tasks=3,
    )
    names = {row.id: row.task_id for row in world.fetch("SELECT id, task_id FROM task_instance")}
    found = {names[ti_id]: reasons for ti_id, reasons in predicted(world, 0).items()}
    assert sorted(found) == ["big", "full", "gone", "next"]
    assert {name: reasons[0].kind for name, reasons in found.items()} == {
        "full": "pool_full",
        "next": "pool_full",
        "big": "pool_too_small",
        "gone": "pool_missing",
    }
    assert found["next"][0].numbers == {
        "pool": "p", "slots": 2, "used": 2, "needs": 1, "place": 2, "ahead": 1,
    }  # fmt: skip
    world.pool("p", 9)
    found = {names[ti_id]: reasons for ti_id, reasons in predicted(world, 0).items()}
    assert found["full"] == []
    assert found["next"][0].kind == "max_active_tasks"
    assert [one.kind for one in found["big"]] == ["max_active_tasks"]


def test_instances_of_a_mapped_task_each_have_their_reason_h17(world: World) -> None:
    """Two of five go; the three others wait for the limit of their task."""
    five = SerializedExpand([Length("literal", count=5)])
    world.start(task("m", expand=five, max_active_tis_per_dagrun=2))
    found = predicted(world, 0)
    assert len(found) == 3
    assert {reasons[0].kind for reasons in found.values()} == {"max_active_tis_per_dagrun"}
    assert next(iter(found.values()))[0].numbers == {"active": 2, "limit": 2}
    world.work()
    assert len(predicted(world, 0)) == 1
