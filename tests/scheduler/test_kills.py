"""Which triggers are killed, and by whom: a user's edits, on both databases (D10)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from roost.models.queries import jobs, kills, triggers
from roost.models.queries.kills import Kill
from roost.support.clock import SECOND, now_us
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


def expire(world: World) -> list[tuple[str, int, int]]:
    lost = world.transact(kills.expire)
    return [(one.task_id, one.attempts, one.strikes) for one in lost]


def let_go(world: World, job_id: int, kill: Kill, strikes: int) -> list[int]:
    struck = {kill.spec.trigger_id: (kill.spec.epoch, strikes)}
    return [one.strikes for one in world.transact(lambda tx: kills.let_go(tx, job_id, struck))]


def come_due(world: World) -> None:
    world.execute("UPDATE trigger_kill SET retry_at = 0")


def age(world: World, by_us: int) -> None:
    world.execute("UPDATE trigger_kill SET created_at = created_at - :k", k=by_us)


def test_it_is_not_given_up_for_triggerers_that_end_but_tried_ever_later_d10(world: World) -> None:
    """They may have been restarted; and if it ends them, it does so a few dozen times a day."""
    world.start(task("a"))
    world.work(a=deferred())
    world.clear("a")
    pauses = []
    for attempt in range(1, 17):
        job_id = world.register("triggerer")
        assert world.transact(lambda tx: kills.tried_before(tx, job_id)) is (attempt > 1)  # noqa: B023
        if attempt > 1:
            assert claim(world, job_id, tried=False) == []
        before = now_us()
        (kill,) = claim(world, job_id)
        assert (kill.attempts, kill.strikes) == (attempt, 0)
        (row,) = world.fetch("SELECT retry_at FROM trigger_kill")
        pauses.append((row.retry_at - before) // SECOND)
        assert row.retry_at <= now_us() + 3600 * SECOND
        world.transact(lambda tx: jobs.end(tx, job_id))  # noqa: B023
        if attempt > 1:
            other = world.register("triggerer")
            world.execute("UPDATE trigger_kill SET retry_at = retry_at + :h", h=3600 * SECOND)
            assert claim(world, other) == []
            assert world.transact(lambda tx: kills.tried_before(tx, other)) is False  # noqa: B023
            assert world.transact(lambda tx: triggers.look(tx, other)).kills == 0  # noqa: B023
        come_due(world)
        assert expire(world) == []
    assert pauses[0] == 0
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert pauses[-1] >= 3600


def test_it_may_end_so_many_runners_d10(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred())
    world.clear("a")
    job_id, other = world.register("triggerer"), world.register("triggerer")
    for strikes in range(1, kills.MOST_STRIKES + 1):
        assert expire(world) == []
        (kill,) = claim(world, job_id)
        assert let_go(world, other, kill, 1) == []  # it is not that one's
        assert let_go(world, job_id, kill, 1) == [strikes]
        assert let_go(world, job_id, kill, 1) == []
        come_due(world)
        (another,) = claim(world, other)  # whoever comes first: the object has gone with its runner
        assert another.strikes == strikes
        assert expire(world) == []  # it is in hand
        assert let_go(world, other, another, 0) == [strikes]
        come_due(world)
    assert expire(world) == [("a", 2 * kills.MOST_STRIKES, kills.MOST_STRIKES)]
    assert killed(world) == []


def test_it_is_kept_so_long_d10(world: World) -> None:
    """A day, if it was tried a few times; what nobody has come for, a week."""
    world.start(task("a"), task("b"))
    world.work(a=deferred(), b=deferred())
    world.clear("a", "b")
    for _ in range(3):
        job_id = world.register("triggerer")
        assert len(claim(world, job_id)) == 2
        world.transact(lambda tx: jobs.end(tx, job_id))  # noqa: B023
        world.execute("UPDATE trigger_kill SET attempts = 0 WHERE task_id = 'b'")
        come_due(world)
    assert expire(world) == []
    age(world, kills.KEPT_US)
    assert expire(world) == [("a", 3, 0)]
    age(world, kills.UNTRIED_US)
    assert expire(world) == [("b", 0, 0)]


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
