"""Which callbacks and mails the scheduler has run, and that none is lost (H23)."""

from __future__ import annotations

import pytest

from roost.dag.model import CallbackName, DagCallbackName, Length, SerializedExpand
from roost.dag.rules import RULES, Verdict
from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, lost, ok, skipped, task

ALL: list[CallbackName] = ["on_execute", "on_success", "on_failure", "on_retry", "on_skipped"]
BOTH: list[DagCallbackName] = ["on_success", "on_failure"]


def test_h23_each_end_of_a_try_has_its_callback(world: World) -> None:
    """H23: success, failure, retry, and skipped only where the task skipped itself."""
    world.start(
        task("good", callbacks=ALL),
        task("bad", callbacks=ALL, retries=1),
        task("mum", "child", callbacks=ALL),
        task("child", callbacks=ALL),
    )
    world.work(bad=failed("ValueError: boom"), mum=skipped())
    assert sorted(world.calls()) == [
        "task bad on_retry up_for_retry ValueError: boom",
        "task good on_success success",
        "task mum on_skipped skipped",
    ]
    world.clock.advance(301)
    world.turns()
    world.work(bad=failed("Traceback …\nValueError: again"))
    # The child was skipped by its rule: no callback.
    assert world.calls() == ["task bad on_failure failed ValueError: again"]
    assert world.calls() == []


def test_h23_an_instance_of_a_mapped_task_calls_back_with_its_index(world: World) -> None:
    """H23, H17: each instance has its own callback."""
    expand = SerializedExpand(factors=[Length(kind="literal", count=3)])
    world.start(task("m", expand=expand, callbacks=["on_success"]))
    world.work()
    world.claim()
    found = {(spec.task_id, spec.map_index) for spec in world.called.values()}
    assert found == {("m", 0), ("m", 1), ("m", 2)}
    world.calls()


def test_h23_a_sensor_that_gives_up_softly_has_skipped_itself(world: World) -> None:
    """H23: on_skipped also where the scheduler ended its wait."""
    world.start(task("s", callbacks=ALL))
    world.work(s=deferred(timeout_s=5, on_timeout="skip"))
    world.clock.advance(6)
    world.turns()
    (called,) = world.calls()
    assert called.startswith("task s on_skipped skipped")


def test_h23_what_is_not_asked_for_is_not_called(world: World) -> None:
    """H23: without callbacks nothing is dispatched but the tasks."""
    world.start(task("a", callbacks=["on_failure"]), task("b"))
    world.work()
    assert world.calls() == []
    assert len(world.fetch("SELECT 1 FROM dispatch")) == 2


def test_h23_the_callback_says_which_try_and_when(world: World) -> None:
    """H23: a callback knows the task instance, its try, its times and the traceback."""
    world.start(task("a", callbacks=["on_failure"], queue="default"))
    (one,) = world.claim()
    world.clock.advance(3)
    world.end(one, failed("line one\nKeyError: 'x'"))
    world.turns()
    world.claim()
    (spec,) = world.called.values()
    assert (spec.ti_id, spec.try_number, spec.map_index) == (one.ti_id, 1, -1)
    assert spec.error == "line one\nKeyError: 'x'"
    assert spec.reason == "KeyError: 'x'"
    assert spec.end_date == world.clock.now
    world.calls()


def test_h23_any_error_text_reaches_the_callback(world: World) -> None:
    """H23: NUL, quotes and backslashes of a traceback, on both databases."""
    error = 'it said "\\u0000" \0 and \ud7ff \U0001f600\n\\'
    world.start(task("a", callbacks=["on_failure"]))
    world.work(a=failed(error))
    world.claim()
    (spec,) = world.called.values()
    assert spec.error == error
    world.calls()


def test_h23_a_failed_and_a_late_trigger_call_back(world: World) -> None:
    """H23, D5, D6: a trigger that failed or timed out ends the try, so it calls back."""
    world.start(task("a", callbacks=ALL), task("b", callbacks=ALL))
    world.work(a=deferred(), b=deferred(timeout_s=10))
    world.fire("a", kind="failed", error="RuntimeError: gone")
    world.turns()
    assert world.calls() == ["task a on_failure failed RuntimeError: gone"]
    world.clock.advance(11)
    world.turns()
    (called,) = world.calls()
    assert called.startswith("task b on_failure failed the trigger timed out")


def test_s106_a_zombie_calls_back_once_its_losses_are_spent(world: World) -> None:
    """S106: a task that its workers lose again and again ends as any failure does."""
    world.start(task("a", callbacks=["on_failure"]))
    for _ in range(6):
        world.work(a=lost())
    assert world.states() == {"a": "failed"}
    assert world.calls() == ["task a on_failure failed its worker died"]


@pytest.mark.parametrize(
    ("outcome", "called"),
    [
        (ok(), "dag a on_success success success"),
        (failed(), "dag a on_failure failed task_failure"),
    ],
    ids=["success", "failure"],
)
def test_h23_a_run_calls_back_with_its_reason(world: World, outcome: object, called: str) -> None:
    """H23: the DAG's callbacks learn why the run ended."""
    world.start(task("a"), callbacks=BOTH)
    world.work(a=outcome)  # type: ignore[arg-type]
    assert world.calls() == [called]


def test_h23_a_deadlocked_run_says_so(world: World) -> None:
    """H23, H10: reason all_tasks_deadlocked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roost.scheduler.plan.RULES", dict.fromkeys(RULES, _never))
        world.start(task("x"), task("y"), callbacks=BOTH)
    assert world.calls() == ["dag y on_failure failed all_tasks_deadlocked"]


def _never(*_counts: int) -> Verdict:
    return Verdict.WAIT


def test_h23_a_run_that_took_too_long_says_so(world: World) -> None:
    """H23, H11: reason timed_out; its tasks were skipped by the limit, not by themselves."""
    world.start(task("a", callbacks=ALL), callbacks=BOTH, dagrun_timeout_us=10 * SECOND)
    world.clock.advance(11)
    world.turns()
    assert world.calls() == ["dag a on_failure failed timed_out"]


def test_h23_a_run_without_tasks_calls_back(world: World) -> None:
    """H23: there is no task instance to show, and it calls all the same."""
    world.start(callbacks=BOTH)
    assert world.calls() == ["dag on_success success success"]


def test_h23_mails_follow_the_knobs(world: World) -> None:
    """H23, S102: email_on_failure and email_on_retry hold only where there are addresses."""
    to = ["ann@example.org"]
    world.start(
        task("both", email=to, retries=1),
        task("last", email=to, email_on_retry=False, retries=1),
        task("none", email=to, email_on_failure=False),
        task("nobody"),
    )
    everything = {name: failed() for name in ("both", "last", "none", "nobody")}
    world.work(**everything)
    assert world.calls() == ["task both email up_for_retry boom"]
    world.clock.advance(301)
    world.turns()
    world.work(**everything)
    assert sorted(world.calls()) == ["task both email failed boom", "task last email failed boom"]


def test_h23_a_callback_goes_where_its_task_goes_and_first(world: World) -> None:
    """H23: a task's callback is in the task's queue, a run's in the default one, ahead of all."""
    world.start(task("a", queue="far", callbacks=["on_success"]), callbacks=BOTH)
    (one,) = world.claim(queues=["far"])
    world.end(one, ok())
    world.turns()
    rows = world.fetch("SELECT queue, priority FROM dispatch WHERE ti_id IS NULL ORDER BY id")
    assert [row.queue for row in rows] == ["far", "default"]
    assert {row.priority for row in rows} == {2**31 - 1}
    world.claim(queues=["far"])
    world.calls()


def test_h23_callbacks_hold_no_slots(world: World) -> None:
    """H23: neither a pool's slot nor one of the scheduler's parallelism."""
    world.schedulers[0]._parallelism = 1
    world.pool("default_pool", 1)
    world.start(task("a", "b", callbacks=["on_success"]), task("b"))
    world.work()
    world.claim()
    assert world.states() == {"a": "success", "b": "running"}  # and the callback runs
    assert len(world.called) == 1
    assert world.used() == 1
    world.end_all(dict.fromkeys(world.held, ok()))
    world.calls()


def test_h23_a_lost_callback_is_handed_over_anew(world: World) -> None:
    """H23: at least once: what dies with its worker is dispatched again, max_losses times."""
    world.start(task("a", callbacks=["on_success"]))
    world.work()
    for _ in range(5):
        world.claim()
        assert len(world.called) == 1
        world.lose_worker()
        world.turns()
    ids = [row.id for row in world.fetch("SELECT id FROM dispatch WHERE ti_id IS NULL")]
    assert len(set(ids)) == 6
    world.claim()
    world.lose_worker()
    world.turns()
    assert world.calls() == []


def test_h23_a_callback_outlives_its_scheduler(postgresql_url: str) -> None:
    """H23: the run has ended and its scheduler is gone; another one settles what it left."""
    world = World(postgresql_url, schedulers=2)
    try:
        world.store(dag("d", task("a", callbacks=["on_success"])))
        world.trigger("d")
        world.turns(0)
        world.end_all(dict.fromkeys([one.id for one in world.claim()], ok()))
        world.turns(0)
        world.claim()
        world.lose_scheduler(0)
        world.lose_worker()
        world.turns(1)
        world.claim()
        assert [spec.name for spec in world.called.values()] == ["on_success"]
        world.end_all(dict.fromkeys(world.called, ok()))
        world.turns(1)
        assert not world.fetch("SELECT 1 FROM dispatch WHERE NOT settled")
        world.check()
    finally:
        world.close()


def test_h23_a_failed_callback_changes_nothing(world: World) -> None:
    """H23: neither a state nor a slot; it is not repeated."""
    world.start(task("a", callbacks=["on_success"]), callbacks=BOTH)
    world.work()
    world.claim()
    world.end_all(dict.fromkeys(world.called, failed("it raised")))
    world.turns()
    assert world.states() == {"a": "success"}
    world.called.clear()
    assert world.calls() == []


def test_h23_move_and_callback_are_one_transaction(world: World) -> None:
    """H23: a turn that does not commit leaves neither the move nor its callback."""
    world.start(task("a", callbacks=["on_success"]))
    (one,) = world.claim()
    world.end(one, ok())
    scheduler = world.schedulers[0]
    taken = scheduler._turn

    def breaks(tx: object) -> object:
        taken(tx)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    scheduler._turn = breaks  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        scheduler.take_turn()
    assert world.states() == {"a": "running"}
    assert not world.fetch("SELECT 1 FROM dispatch WHERE ti_id IS NULL")
    scheduler._turn = taken  # type: ignore[method-assign]
    world.turns()
    assert world.calls() == ["task a on_success success"]
