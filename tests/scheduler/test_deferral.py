"""Deferral: slots are free at once, an event resumes once, a failure needs no worker (D1-D7)."""

from __future__ import annotations

import msgspec
import pytest

from roost.scheduler.steps.deferral import NOT_SOON_US
from roost.support.clock import SECOND
from roost.triggerer.lanes import POLL_S
from tests.scheduler.hands import START, World, deferred, failed, ok, task


def test_a_deferred_task_holds_no_slot_n1(world: World) -> None:
    """N1, N5: what waits costs no slot."""
    world.start(task("a"))
    assert world.used() == 1
    world.work(a=deferred())
    assert world.states() == {"a": "deferred"}
    assert world.used() == 0
    assert world.turn().in_flight == 0
    assert world.claim() == []


def test_a_trigger_ranks_by_the_effective_weight_of_its_task_d16(world: World) -> None:
    """The heavier, the smaller: a triggerer claims in the order of ranks."""
    world.start(task("a", "c", priority_weight=3), task("b", priority_weight=5), task("c"))
    world.work(a=deferred(), b=deferred())
    ranks = world.fetch(
        "SELECT ti.task_id, t.rank FROM trigger t JOIN task_instance ti ON ti.id = t.ti_id"
    )
    assert {row.task_id: row.rank for row in ranks} == {"a": -4, "b": -5}


def test_an_event_resumes_the_method_with_its_payload_d3(world: World) -> None:
    run = world.start(task("a", "b"), task("b"))
    world.work(a=deferred(next_kwargs='{"x":1}'))
    before = world.row("a")
    trigger_id = world.fire("a", {"rows": 42})
    world.turns()
    (resumed,) = world.claim()
    assert resumed.next_method == "execute_complete"
    assert msgspec.json.decode(resumed.next_kwargs or "") == {"x": 1, "event": {"rows": 42}}
    assert resumed.try_number == 1
    assert resumed.start_date == before.start_date == START
    assert world.fetch("SELECT * FROM trigger_event") == []
    moves = world.fetch("SELECT trigger_id FROM event_log WHERE event = 'resume'")
    assert [move.trigger_id for move in moves] == [trigger_id]
    world.end(resumed, ok())
    world.turns()
    assert (world.row("a").next_method, world.row("a").next_kwargs) == (None, None)
    assert world.work() == ["b"]
    assert world.run_state(run) == "success"


def test_the_start_of_a_try_is_kept_and_its_run_time_summed_d3_d7(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred(run_us=5))
    world.clock.advance(100)
    world.fire("a")
    world.turns()
    (resumed,) = world.claim()
    assert (resumed.run_us, resumed.start_date) == (5, START)
    world.end(resumed, ok(run_us=7))
    world.turns()
    row = world.row("a")
    assert (row.run_us, row.start_date, row.end_date) == (12, START, START + 100 * SECOND)
    assert world.log("a") == [
        "schedule", "enqueue", "start", "defer", "resume", "enqueue", "start", "succeed",
    ]  # fmt: skip


def test_two_deferrals_in_a_row_d2(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred(next_method="second"))
    first = world.fire("a", 1)
    world.turns()
    (resumed,) = world.claim()
    assert resumed.next_method == "second"
    world.end(resumed, deferred(next_method="third"))
    world.turns()
    second = world.fire("a", 2)
    assert second > first
    world.turns()
    (resumed,) = world.claim()
    assert resumed.next_method == "third"
    assert msgspec.json.decode(resumed.next_kwargs or "") == {"event": 2}
    world.end(resumed, ok())
    world.turns()
    assert world.row("a").try_number == 1


def test_a_trigger_that_defers_and_fires_before_anyone_looks(world: World) -> None:
    """The event comes in the very moment the deferral is settled; both orders end alike."""
    world.start(task("a"))
    (a,) = world.claim()
    world.end(a, deferred())
    world.turn()
    world.fire("a", "now")
    world.turn()
    assert world.work() == ["a"]
    assert world.states() == {"a": "success"}


def test_the_first_event_wins_invariant_s3(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred())
    trigger_id = world.fire("a", "first")
    world.fire_id(trigger_id, "second")
    world.turns()
    world.fire_id(trigger_id, "third")
    (resumed,) = world.claim()
    assert msgspec.json.decode(resumed.next_kwargs or "") == {"event": "first"}
    world.end(resumed, ok())
    world.turns()
    assert world.log("a").count("resume") == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failed_trigger_fails_or_retries_without_a_slot_d5(world: World, retries: int) -> None:
    world.start(task("a", retries=retries, retry_delay_us=SECOND))
    world.work(a=deferred())
    world.fire("a", kind="failed", error="Traceback: broken trigger")
    world.turn()
    assert world.claim() == []
    assert world.states() == {"a": "up_for_retry" if retries else "failed"}
    if retries:
        world.clock.advance(1)
        world.turns()
        (again,) = world.claim()
        assert (again.try_number, again.next_method) == (2, None)
        world.end(again, ok())
        world.turns()
    assert world.reasons("fail", "retry") == ["Traceback: broken trigger"]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_time_out_ends_the_deferral_d6(world: World, retries: int) -> None:
    world.start(task("a", retries=retries, retry_delay_us=60 * SECOND))
    world.work(a=deferred(timeout_s=30))
    report = world.turns()
    assert report.next_due == START + 30 * SECOND
    world.clock.advance(29)
    world.turns()
    assert world.states() == {"a": "deferred"}
    world.clock.advance(1)
    assert world.turn().deferred  # the triggerer shall look: the trigger holds a connection
    world.turns()
    assert world.states() == {"a": "up_for_retry" if retries else "failed"}
    assert world.fetch("SELECT * FROM trigger") == []
    (reason,) = world.reasons("fail", "retry")
    assert "timed out" in (reason or "")
    if retries:
        world.clock.advance(60)
        world.turns()
        assert world.work() == ["a"]


def test_an_event_after_the_time_out_is_ignored_d6(world: World) -> None:
    world.start(task("a"), task("b"))
    (a, _b) = world.claim()
    world.end(a, deferred(timeout_s=1))
    world.turns()
    (trigger_id,) = world.pending_triggers()
    world.clock.advance(2)
    world.turns()
    world.fire_id(trigger_id, "late")
    world.turns()
    assert world.states() == {"a": "failed", "b": "running"}
    assert "resume" not in world.log("a")


def test_an_event_that_was_stored_before_the_time_out_wins_though_seen_after_d6(
    world: World,
) -> None:
    """The scheduler was away while both happened."""
    world.start(task("a"))
    world.work(a=deferred(timeout_s=10))
    world.fire("a", "in time")
    world.clock.advance(60)
    world.schedulers[0].forget()
    world.turns()
    assert world.work() == ["a"]
    assert world.states() == {"a": "success"}


def test_no_stored_event_is_lost_to_a_time_out_when_many_fire_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than one turn takes, all of them stored in time; then all time-outs pass."""
    monkeypatch.setattr("roost.scheduler.turn._FIRST_EVENTS", 1)
    world.schedulers[0].forget()
    tasks = [task(f"t{n}") for n in range(8)]
    world.start(*tasks)
    world.work(**{one.task_id: deferred(timeout_s=10) for one in tasks})
    assert set(world.states().values()) == {"deferred"}
    world.fire_all()
    world.clock.advance(11)
    world.turns()
    assert set(world.states().values()) == {"queued"}


@pytest.mark.parametrize(("wait_s", "looks"), [(9, True), (11, False)])
def test_a_triggerer_is_woken_for_a_timer_only_if_its_next_look_could_be_late(
    world: World, wait_s: int, looks: bool
) -> None:
    """N4: what wakes it costs a look; what is due tonight it finds by itself."""
    world.start(task("a"))
    due_at = world.clock.now + wait_s * SECOND
    (claimed,) = world.claim()
    world.end(claimed, deferred(lane="timer", due_at=due_at))
    assert world.turn().deferred is looks
    assert NOT_SOON_US >= 2 * POLL_S * SECOND


def test_of_many_that_wake_together_the_first_do_not_wait_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn takes few events at first, then twice as many, so that some are soon at work."""
    monkeypatch.setattr("roost.scheduler.turn._FIRST_EVENTS", 4)
    world.schedulers[0].forget()
    tasks = [task(f"t{n}") for n in range(20)]
    world.start(*tasks, max_active_tasks=100)
    world.work(**{one.task_id: deferred() for one in tasks})
    world.fire_all()
    handed_over = []
    while (report := world.turn()).handoffs:
        handed_over.append((len(report.handoffs), report.more))
    assert handed_over == [(4, True), (8, True), (8, False)]


def test_the_time_out_of_a_former_deferral_does_not_end_the_next(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred(timeout_s=10))
    world.fire("a")
    world.turns()
    world.work(a=deferred())
    world.clock.advance(20)
    world.turns()
    assert world.states() == {"a": "deferred"}
    world.fire("a")
    world.turns()
    world.work()


def test_a_deferral_survives_a_scheduler_that_forgets(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0))
    world.work(a=deferred(timeout_s=10))
    world.schedulers[0].forget()
    assert world.turns().next_due == START + 10 * SECOND
    world.clock.advance(10)
    world.turns()
    assert world.row("a").try_number == 2
    world.work(a=deferred())
    world.schedulers[0].forget()
    world.fire("a")
    world.turns()
    assert world.work() == ["a"]


def test_a_failure_after_a_resume_retries_from_the_start(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0))
    world.work(a=deferred(next_kwargs='{"x":1}'))
    world.fire("a")
    world.turns()
    world.work(a=failed())
    world.turns()
    (again,) = world.claim()
    assert (again.try_number, again.next_method, again.next_kwargs) == (2, None, None)
    assert again.run_us == 0
    world.end(again, ok())
    world.turns()


@pytest.mark.parametrize("payload", ["null", '"\\u0000"', '"{now} %s :name \' é"', "[1,{}]"])
def test_any_payload_is_passed_on_untouched(world: World, payload: str) -> None:
    world.start(task("a"))
    world.work(a=deferred())
    world.fire("a", msgspec.Raw(payload.encode()))
    world.turns()
    (resumed,) = world.claim()
    assert resumed.next_kwargs is not None
    assert msgspec.json.decode(resumed.next_kwargs)["event"] == msgspec.json.decode(payload)
    world.end(resumed, ok())
    world.turns()


@pytest.mark.parametrize(("wish", "state"), [("fail", "failed"), ("skip", "skipped")])
@pytest.mark.parametrize("forgets", [False, True])
def test_a_time_out_does_what_the_task_asked_for_d6_d24(
    world: World, wish: str, state: str, forgets: bool
) -> None:
    """A sensor's time-out is not tried again; with soft_fail it skips. No slot is needed."""
    world.pool("few", 1, deferred_percent=100)
    world.start(task("a", "b", pool="few", retries=3), task("b", trigger_rule="all_done"))
    world.work(a=deferred(timeout_s=30, on_timeout=wish))
    assert world.used("few") == 1
    if forgets:
        world.schedulers[0].forget()
        world.turns()
    world.clock.advance(30)
    world.turns()
    assert world.states()["a"] == state
    assert (world.used("few"), world.fetch("SELECT * FROM trigger")) == (0, [])
    assert world.work() == ["b"]
