"""Which triggers are killed, and by whom: a user's edits, on both databases (D10)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.models.queries import jobs, kills, triggers
from roost.models.queries.kills import Kill
from roost.support.clock import SECOND
from tests.scheduler.hands import World, deferred, ok, task
from tests.scheduler.test_start_from_trigger import waits


def killed(world: World) -> list[str]:
    return [row.task_id for row in world.fetch("SELECT task_id FROM trigger_kill ORDER BY task_id")]


def claim(world: World, job_id: int, *busy: int, **more: Any) -> list[Kill]:
    return world.transact(lambda tx: kills.claim(tx, job_id, 10, busy, **more))


def own(world: World, job_id: int) -> dict[int, int]:
    return world.transact(lambda tx: triggers.claim(tx, job_id, 10))


@pytest.mark.parametrize("edit", ["clear", "success", "failed", "skipped"])
def test_a_users_edit_of_a_deferred_task_is_a_kill_d10(world: World, edit: Any) -> None:
    world.start(task("a"), task("b"))
    world.work(a=deferred(kwargs=msgspec.Raw(b'{"job": 7}')), b=deferred())
    job_id = world.register("triggerer")
    claims = own(world, job_id)
    (before,) = world.fetch("SELECT id FROM trigger t WHERE ti_id = :i", i=world.ids("a")[0])
    world.clear("a") if edit == "clear" else world.mark(edit, "a")
    (row,) = world.fetch("SELECT * FROM trigger_kill")
    assert (row.id, row.job_id, row.epoch) == (before.id, job_id, claims[before.id])
    assert (row.dag_id, row.task_id, row.try_number, row.kwargs) == ("d", "a", 1, '{"job": 7}')
    assert world.fetch("SELECT * FROM trigger WHERE id = :i", i=before.id) == []
    world.turns()
    world.check()


@pytest.mark.parametrize("wish", ["clear", "failed"])
def test_a_deferral_that_a_user_outran_is_one_too_d10(world: World, wish: Any) -> None:
    """The task has begun something and says deferred; the wish came before that was settled."""
    world.start(task("a"))
    (dispatch,) = world.claim()
    world.end(dispatch, deferred())
    world.clear("a") if wish == "clear" else world.mark(wish, "a")
    world.turns()
    assert killed(world) == ["a"]
    assert world.fetch("SELECT * FROM trigger") == []
    world.check()


def test_neither_time_out_nor_event_nor_failure_nor_row_kills_d10(world: World) -> None:
    run = world.start(
        *(task(name, retries=0) for name in ("late", "fired", "ended", "timer", "external")),
        waits("unmade"),
    )
    world.work(
        late=deferred(timeout_s=5),
        fired=deferred(),
        ended=deferred(),
        timer=deferred(lane="timer", due_at=world.clock.now + SECOND * 999),
        external=deferred(lane="external", key="k"),
    )
    world.fire("ended", kind="failed", error="boom")
    world.clock.advance(6)
    world.turns()
    world.fire("fired", 1)
    world.clear("fired", "timer", "external", "unmade")
    assert killed(world) == []
    world.mark_run(run, "failed")
    world.turns()
    assert killed(world) == []


def test_a_run_that_takes_too_long_kills_nothing_elsewhere_d10_h11(world: World) -> None:
    world.start(task("a"), dagrun_timeout_us=10 * SECOND)
    world.work(a=deferred())
    world.clock.advance(11)
    world.turns()
    assert world.states() == {"a": "skipped"}
    assert killed(world) == []


def test_a_marked_run_kills_what_waits_in_it_d10(world: World) -> None:
    run = world.start(task("a"), task("b"))
    world.work(a=deferred(), b=ok())
    world.mark_run(run, "failed")
    world.turns()
    assert killed(world) == ["a"]


def test_the_owner_kills_and_when_it_is_gone_another_d10(world: World) -> None:
    """Each claim has an epoch, and only the one in force settles it."""
    world.start(task("a", queue="q"))
    world.claim(queues=["q"])
    world.end_all({id_: deferred() for id_ in list(world.held)})
    world.turns()
    first, second, third = (world.register("triggerer") for _ in range(3))
    ((number, epoch),) = own(world, first).items()
    world.clear("a")
    assert claim(world, second) == []
    (mine,) = claim(world, first)
    assert (mine.spec.trigger_id, mine.spec.epoch, mine.attempts) == (number, epoch + 1, 1)
    assert claim(world, first, number) == []  # it has it in hand
    world.transact(lambda tx: jobs.end(tx, first))
    assert claim(world, first) == []
    assert claim(world, third, queues=["other"]) == []
    (taken,) = claim(world, second, queues=["q"])
    assert (taken.spec.epoch, taken.attempts) == (epoch + 2, 2)
    world.transact(lambda tx: kills.finish(tx, first, {number: epoch + 2}))
    world.transact(lambda tx: kills.finish(tx, second, {number: epoch + 1}))
    assert killed(world) == ["a"]
    world.transact(lambda tx: kills.finish(tx, second, {number: epoch + 2}))
    assert killed(world) == []


def test_it_is_given_to_so_many_runners_and_kept_so_long_d10(world: World) -> None:
    world.start(task("a"), task("b"))
    world.work(a=deferred(), b=deferred())
    job_id = world.register("triggerer")
    world.clear("a")
    assert world.transact(lambda tx: kills.tried_before(tx, job_id)) is False
    for attempt in range(1, kills.MOST_ATTEMPTS + 1):
        (kill,) = claim(world, job_id)
        assert kill.attempts == attempt
        assert world.transact(lambda tx: kills.tried_before(tx, job_id)) is True
        assert claim(world, job_id, tried=False) == []
    assert claim(world, job_id) == []
    assert killed(world) == []
    world.clear("b")
    world.execute("UPDATE trigger_kill SET created_at = created_at - :k", k=kills.KEPT_US)
    assert claim(world, job_id) == []
    assert killed(world) == []


def test_a_look_tells_how_many_there_are_for_whom_d10(world: World) -> None:
    world.start(task("a"), task("b"))
    world.work(a=deferred(), b=deferred())
    first, second = (world.register("triggerer") for _ in range(2))
    world.transact(lambda tx: triggers.claim(tx, first, 1))
    world.clear()

    def seen(job_id: int) -> int:
        return world.transact(lambda tx: triggers.look(tx, job_id)).kills

    assert (seen(first), seen(second)) == (2, 1)
    world.transact(lambda tx: jobs.end(tx, first))
    assert seen(second) == 2


def test_what_started_in_its_trigger_is_made_again_of_its_templates_d10_d12(world: World) -> None:
    world.start(waits("a"))
    job_id = world.register("triggerer")
    own(world, job_id)
    world.clear("a")
    (kill,) = claim(world, job_id)
    start = kill.spec.start
    assert start is not None
    assert start.task is not None
    assert bytes(start.kwargs) == b'{"path":"/data/{{ ds }}"}'
    assert (start.task.task_id, start.task.run_id) == ("a", kill.spec.run_id)
