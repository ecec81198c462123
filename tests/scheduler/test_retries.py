"""Tries: how many, when, and what does not cost one (invariants S2, S11, H13)."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.scheduler.retry import retry_delay_us
from roost.support.clock import SECOND
from tests.scheduler.hands import (
    START,
    OutcomeOf,
    World,
    deferred,
    failed,
    lost,
    ok,
    skipped,
    task,
)


def test_a_failed_try_is_tried_again_after_its_delay_invariant_s2(world: World) -> None:
    run = world.start(task("a", "b", retries=2, retry_delay_us=60 * SECOND), task("b"))
    world.work(a=failed("once"))
    assert world.states() == {"a": "up_for_retry", "b": "none"}
    assert world.turns().next_due == START + 60 * SECOND
    world.clock.advance(59.9)
    world.turns()
    assert world.claim() == []
    world.clock.advance(0.1)
    world.turns()
    world.work(a=failed("twice"))
    world.clock.advance(60)
    world.turns()
    assert world.work() == ["a"]
    assert world.row("a").try_number == 3
    assert world.work() == ["b"]
    assert world.run_state(run) == "success"
    assert world.reasons("retry") == ["once", "twice"]


def test_when_no_try_is_left_it_fails_invariant_s11(world: World) -> None:
    run = world.start(task("a", "b", retries=1, retry_delay_us=0), task("b"))
    world.work(a=failed())
    world.work(a=failed())
    assert world.states() == {"a": "failed", "b": "upstream_failed"}
    assert world.row("a").try_number == 2
    assert world.run_state(run) == "failed"


def test_a_task_may_forbid_its_retry(world: World) -> None:
    world.start(task("a", retries=5))
    world.work(a=failed(retryable=False))
    assert world.states() == {"a": "failed"}


def test_retries_survive_a_scheduler_that_forgets(world: World) -> None:
    world.start(task("a", retries=2, retry_delay_us=10 * SECOND))
    world.work(a=failed())
    world.schedulers[0].forget()
    assert world.turns().next_due == START + 10 * SECOND
    world.clock.advance(10)
    world.turns()
    world.schedulers[0].forget()
    world.turns()
    world.work(a=failed())
    assert world.row("a").try_number == 2
    assert world.states() == {"a": "up_for_retry"}


def test_xcoms_of_a_failed_try_are_gone_invariant_s16(world: World) -> None:
    world.start(task("a", retries=1, retry_delay_us=0), task("b"))
    ids = {one.task_id: one.ti_id for one in world.claim()}
    for ti_id in ids.values():
        world.execute(
            "INSERT INTO xcom (ti_id, key, value, created_at) VALUES (:t, 'k', '1', 0)", t=ti_id
        )
    world.end_all(
        {id_: failed() if one.task_id == "a" else ok() for id_, one in world.held.items()}
    )
    world.turns()
    assert [row.ti_id for row in world.fetch("SELECT ti_id FROM xcom")] == [ids["b"]]


def leave_xcom(world: World, ti_id: int) -> None:
    world.execute(
        "INSERT INTO xcom (ti_id, key, value, created_at) VALUES (:t, 'k', '1', 0)", t=ti_id
    )


def test_xcoms_of_a_task_that_failed_for_good_are_gone_invariant_s16(world: World) -> None:
    """A task downstream that runs all the same reads nothing of it."""
    world.start(task("a", retries=0))
    (one,) = world.claim()
    leave_xcom(world, one.ti_id)
    world.end(one, failed())
    world.turns()
    assert world.states() == {"a": "failed"}
    assert world.fetch("SELECT ti_id FROM xcom") == []


def test_xcoms_of_a_lost_dispatch_are_gone_invariant_s16(world: World) -> None:
    world.start(task("a", retries=0))
    (one,) = world.claim()
    leave_xcom(world, one.ti_id)
    world.lose_worker()
    world.turns()
    assert world.fetch("SELECT ti_id FROM xcom") == []
    assert len(world.claim()) == 1


def test_xcoms_from_before_a_deferral_outlive_a_loss_after_it_invariant_s16(world: World) -> None:
    """What was pushed before ``defer`` belongs to the try that goes on."""
    world.start(task("a", retries=0))
    (one,) = world.claim()
    leave_xcom(world, one.ti_id)
    world.end(one, deferred())
    world.turns()
    world.fire("a")
    world.turns()
    world.claim()
    world.lose_worker()
    world.turns()
    assert len(world.fetch("SELECT ti_id FROM xcom")) == 1


def test_a_lost_dispatch_costs_no_try_invariant_s11(world: World) -> None:
    world.start(task("a", retries=0))
    before = world.claim()[0].id
    world.lose_worker()
    world.turns()
    (again,) = world.claim()
    assert again.id > before
    assert again.try_number == 1
    assert not world.end(before, failed())  # the lost one has no say any more (S2)
    world.end(again, ok())
    world.turns()
    row = world.row("a")
    assert (row.state, row.losses) == ("success", 1)
    assert world.log("a").count("lose") == 1


@pytest.mark.parametrize("restart", [False, True])
def test_losses_have_a_budget_invariant_s11(world: World, restart: bool) -> None:
    world.start(task("a", retries=1, retry_delay_us=0))
    for loss in range(1, 6):
        world.claim()
        world.lose_worker()
        if restart:
            world.schedulers[0].forget()
        world.turns()
        assert (world.row("a").losses, world.row("a").try_number) == (loss, 1)
    world.claim()
    world.lose_worker()
    world.turns()
    assert world.row("a").try_number == 2  # the sixth costs a try
    assert world.reasons("retry") == ["its worker died"]


def test_a_lost_resume_resumes_again_with_the_same_event(world: World) -> None:
    world.start(task("a"))
    world.work(a=deferred())
    world.fire("a", "payload")
    world.turns()
    (first,) = world.claim()
    world.lose_worker()
    world.turns()
    (second,) = world.claim()
    assert second.id > first.id
    assert second.next_method == first.next_method == "execute_complete"
    assert second.next_kwargs == first.next_kwargs
    world.end(second, ok())
    world.turns()
    assert world.log("a").count("resume") == 1


@given(
    delay=st.integers(0, 10**12),
    tries=st.integers(1, 60),
    longest=st.none() | st.integers(0, 10**12),
)
def test_backoff_doubles_within_its_bounds_h13(delay: int, tries: int, longest: int | None) -> None:
    one = task(
        "a", retry_delay_us=delay, retry_exponential_backoff=True, max_retry_delay_us=longest
    )
    day = 24 * 3600 * SECOND
    bound = day if longest is None else min(day, longest)
    waits = [retry_delay_us(one, number, "seed") for number in range(1, tries + 1)]
    assert waits == [retry_delay_us(one, number, "seed") for number in range(1, tries + 1)]
    for number, wait in enumerate(waits):
        base = delay * 2**number
        assert min(base, bound) <= wait <= min(2 * base, bound)
    assert all(later >= earlier for earlier, later in pairwise(waits))
    plain = task("a", retry_delay_us=delay, max_retry_delay_us=longest)
    assert retry_delay_us(plain, tries, "x") == (delay if longest is None else min(delay, longest))


@given(
    delay=st.integers(0, 10**15),
    tries=st.integers(1, 2000),
    factor=st.floats(1, 1e300),
    most=st.integers(1, 10**13),
)
def test_backoff_with_its_own_factor_stays_in_bounds_h13(
    delay: int, tries: int, factor: float, most: int
) -> None:
    one = task("a", retry_delay_us=delay, retry_exponential_backoff=True, retry_multiplier=factor)
    wait = retry_delay_us(one, tries, "seed", most)
    base = min(delay, most)
    assert base <= wait <= most
    if tries == 1:
        assert wait < max(1, 2 * base) or wait == most


def test_a_task_that_says_when_to_try_again_is_obeyed_h13(world: World) -> None:
    """What a retry policy said in the task's process; ``retries`` still say how often."""
    world.start(task("a", retries=1, retry_delay_us=60 * SECOND))
    world.work(a=failed(retry_delay_us=5 * SECOND))
    assert world.turns().next_due == START + 5 * SECOND
    world.clock.advance(5)
    world.turns()
    world.work(a=failed(retry_delay_us=5 * SECOND))
    assert world.states() == {"a": "failed"}


def test_what_a_worker_stored_and_nobody_can_read_fails_that_task_only(world: World) -> None:
    """A corrupt row is that task's failure; the loop goes on."""
    bad = ["", "{", '{"kind":"weird"}', '{"kind":"deferred","started_at":1,"ended_at":1}', "[]"]
    world.start(*[task(f"t{n}", retries=0) for n in range(len(bad))], task("good"))
    claimed = {one.task_id: one.id for one in world.claim()}
    for number, text in enumerate(bad):
        world.execute(
            "UPDATE dispatch SET ended_at = 1, outcome = :o WHERE id = :i",
            o=text,
            i=claimed[f"t{number}"],
        )
    world.end(claimed["good"], ok())
    world.turns()
    assert world.states() == {**{f"t{n}": "failed" for n in range(len(bad))}, "good": "success"}
    assert all("cannot be read" in (reason or "") for reason in world.reasons("fail"))


@pytest.mark.parametrize(
    "error", ["a\0b", "\ud800", "x" * 100_000, "%s :name {now} '\" é \U0001f680"]
)
def test_any_error_text_fails_that_task_only(world: World, error: str) -> None:
    world.start(task("a"), task("b"))
    claimed = {one.task_id: one.id for one in world.claim()}
    world.execute(
        "UPDATE dispatch SET ended_at = 1, outcome = :o WHERE id = :i",
        o='{"kind":"failed","started_at":1,"ended_at":1,"error":"'
        + error.encode("utf-16", "surrogatepass")
        .decode("utf-16", "surrogatepass")
        .replace("\\", "")
        .replace('"', '\\"')
        .replace("\0", "\\u0000")
        .replace("\ud800", "\\ud800")
        + '"}',
        i=claimed["a"],
    )
    world.end(claimed["b"], ok())
    world.turns()
    assert world.states() == {"a": "failed", "b": "success"}


@pytest.mark.parametrize(
    "outcome",
    [
        deferred(lane="timer"),
        deferred(timeout_s=1e14),
        deferred(timeout_s=-1),
        deferred(lane="timer", due_at=2**63),
        deferred(lane="timer", due_at=-(2**64)),
    ],
)
def test_a_deferral_that_no_row_can_hold_fails_that_task_only(
    world: World, outcome: OutcomeOf
) -> None:
    world.start(task("a"), task("b"))
    world.work(a=outcome)
    assert world.states() == {"a": "failed", "b": "success"}


@pytest.mark.parametrize("outcome", [ok(), failed(), skipped(), deferred(), lost()])
def test_an_older_dispatch_has_no_say_though_its_outcome_comes_late_invariant_s2(
    world: World, outcome: OutcomeOf
) -> None:
    """However its row came back into the inbox, only the current dispatch moves the task."""
    world.start(task("a", retries=3, retry_delay_us=0))
    (old,) = world.claim()
    world.lose_worker()
    world.turns()
    (current,) = world.claim()
    before, log = world.row("a"), world.log("a")
    world.execute(
        "UPDATE dispatch SET settled = :f, outcome = :o WHERE id = :i",
        f=False,
        o=msgspec.json.encode(outcome(world)).decode(),
        i=old.id,
    )
    world.turns()
    assert world.row("a") == before
    assert world.log("a") == log
    assert world.fetch("SELECT * FROM trigger") == []
    assert world.used() == 1
    world.end(current, ok())
    world.turns()
    assert world.states() == {"a": "success"}
    assert world.used() == 0


def test_the_log_says_why_a_dispatch_was_lost(world: World) -> None:
    world.start(task("a"), task("b"), task("c"))
    world.turns()
    claimed = {one.task_id: one for one in world.claim()}
    world.end_all({claimed["a"].id: lost(), claimed["b"].id: ok(), claimed["c"].id: lost()})
    world.turns()
    assert world.reasons("lose") == ["its worker died", "its worker died"]
    assert world.states() == {"a": "queued", "b": "success", "c": "queued"}
