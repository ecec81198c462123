"""What tasks ask about runs, answered by the worker, and the whole way of a child run (S95-S98)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.models.queries.dispatches import Claimed
from roost.support.task_requests import Reply, RunCreate, RunStates
from roost.worker import children
from roost.worker.children import Refused
from tests.scheduler.hands import START, World, dag, failed, ok, task
from tests.scheduler.test_awaited import until
from tests.worker.driving import make_spec


@pytest.fixture
def family(world: World) -> World:
    """A DAG ``d`` with a running task ``t`` of two retries, and a DAG ``child``."""
    world.store(dag("child", task("c1", "c2"), task("c2", "c3"), task("c3")))
    world.start(task("t", retries=2, retry_delay_us=0))
    return world


def claim(world: World) -> Claimed:
    """The dispatch of ``t``."""
    (one,) = (claimed for claimed in world.claim() if claimed.task_id == "t")
    return one


def ask(world: World, by: Claimed, **request: Any) -> Reply:
    """What the worker answers when that task asks for a run."""
    spec = msgspec.structs.replace(
        make_spec(by.id, "t", try_number=by.try_number),
        ti_id=by.ti_id,
        dag_id="d",
        run_id=by.run_id,
    )
    wanted = RunCreate(**{"dag_id": "child", "run_id": "c", **request})
    now = world.clock.now
    return world.transact(lambda tx: children.create(tx, world.worker, spec, wanted, now=now))


def see(world: World, **request: Any) -> Reply:
    return world.transact(lambda tx: children.see(tx, RunStates("child", **request)))


def test_a_task_starts_a_run_once_in_a_try(family: World) -> None:
    by = claim(family)
    reply = ask(family, by, logical_date=START, conf=msgspec.Raw(b'{"a":1}'))
    assert (reply.text, reply.runs[0].state) == ("created", "queued")
    # A dispatch of the same try asks again: its worker was lost before it could say that it did.
    assert ask(family, by, on_exists="restart").text == "created"
    (row,) = family.fetch("SELECT * FROM dag_run WHERE dag_id = 'child'")
    assert (row.run_id, row.run_type, row.conf) == ("c", "manual", '{"a":1}')
    assert row.logical_date == row.interval_start == START
    family.end(by, ok())
    family.turns()
    for _ in range(3):
        family.work()
    assert family.run_state(row.id) == "success"


def test_a_lost_worker_does_not_start_a_second_run(family: World) -> None:
    by = claim(family)
    ask(family, by)
    family.lose_worker()
    family.turns()
    again = claim(family)
    assert again.try_number == by.try_number
    assert ask(family, again).text == "created"
    family.turns()
    for _ in range(3):
        family.claim()
        others = [id_ for id_ in family.held if id_ != again.id]
        family.end_all(dict.fromkeys(others, ok()))
        family.turns()
    reply = ask(family, again, on_exists="restart")  # the run has ended, but it is this try's
    assert (reply.text, reply.runs[0].state) == ("created", "success")
    with pytest.raises(Refused, match="not valid any more"):
        ask(family, by, run_id="other")
    assert len(family.fetch("SELECT id FROM dag_run WHERE dag_id = 'child'")) == 1


def test_a_run_that_exists(family: World) -> None:
    by = claim(family)
    family.trigger("child", "c")
    reply = ask(family, by)
    assert (reply.text, reply.runs[0].state) == ("exists", "queued")
    assert ask(family, by, on_exists="restart").text == "exists"  # it goes on anyway


def test_dags_that_cannot_be_run(family: World) -> None:
    by = claim(family)
    assert ask(family, by, dag_id="never") == Reply(text="unknown")
    family.pause("child")
    assert ask(family, by, refuse_paused=True) == Reply(text="paused")
    assert ask(family, by).text == "created"
    family.execute("UPDATE dag SET is_active = FALSE WHERE dag_id = 'child'")
    assert ask(family, by) == Reply(text="inactive")


@pytest.mark.parametrize(
    ("on_exists", "again"),
    [
        ("leave", ["c1", "c2", "c3"]),
        ("resume_failed", ["c2", "c3"]),
        ("restart_failed", ["c1", "c2", "c3"]),
        ("restart", ["c1", "c2", "c3"]),
    ],
)
def test_a_retry_goes_on_with_a_failed_run(family: World, on_exists: str, again: list[str]) -> None:
    by = claim(family)
    ask(family, by)
    family.end(by, until(dag_id="child", run_id="c"))
    family.turns()
    family.work()
    family.work(c2=failed())
    (run,) = family.fetch("SELECT id, state FROM dag_run WHERE dag_id = 'child'")
    assert run.state == "failed"
    resumed = claim(family)
    family.end(resumed, failed())
    family.turns()
    retry = claim(family)
    assert retry.try_number == 2
    reply = ask(family, retry, on_exists=on_exists)
    assert reply.text == "restarted"
    family.end(retry, ok())
    family.turns()
    ran: list[str] = []
    for _ in range(3):
        ran += family.work()
    assert ran == again
    assert family.run_state(run.id) == "success"


def test_a_retry_comes_back_to_a_run_that_goes_on(family: World) -> None:
    by = claim(family)
    ask(family, by)
    family.end(by, failed())
    family.turns()
    retry = claim(family)
    assert (retry.try_number, ask(family, retry).text) == (2, "created")
    assert len(family.fetch("SELECT id FROM dag_run WHERE dag_id = 'child'")) == 1


def test_a_failed_run_of_somebody_else_is_left_alone(family: World) -> None:
    by = claim(family)
    key = family.trigger("child", "c")
    family.turns()
    family.work(c1=failed())
    assert family.run_state(key) == "failed"
    assert ask(family, by).text == "exists"
    assert ask(family, by, on_exists="restart_failed").text == "restarted"


def test_runs_and_tasks_can_be_seen(family: World) -> None:
    assert see(family, run_id="c").runs == []
    family.trigger("child", "c")
    family.turns()
    family.work()
    reply = see(family, run_id="c", task_ids=["c1", "c2", "nothing"])
    assert reply.dag is not None
    assert reply.dag.task_ids == ["c1", "c2"]
    (run,) = reply.runs
    assert (run.state, run.tasks) == ("running", {"c1": ["success"], "c2": ["queued"]})
    date = run.logical_date
    assert see(family, logical_dates=[date, 5]).runs[0].run_id == "c"
    family.store(dag("grouped", task("a", extra={"task_group": "g"}), task("b")))
    asked = RunStates("grouped", group_id="g")
    found = family.transact(lambda tx: children.see(tx, asked)).dag
    assert found is not None
    assert found.task_ids == ["a"]
    nobody = family.transact(lambda tx: children.see(tx, RunStates("never")))
    assert nobody == Reply()


def test_s98_a_pool_of_one_slot_is_enough_for_parent_and_child(world: World) -> None:
    """The parent holds no slot while it waits, so the tasks inside cannot starve."""
    world.pool("one", 1)
    world.store(dag("child", task("inner", pool="one")))
    run = world.start(task("t", pool="one"))
    by = claim(world)
    ask(world, by)
    world.end(by, until(dag_id="child", run_id="c"))
    world.turns()
    assert world.work() == ["inner"]
    assert world.work() == ["t"]
    assert world.run_state(run) == "success"
