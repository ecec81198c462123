"""How a run flows from its first task to its end."""

from __future__ import annotations

from typing import get_args

import pytest

from roost.dag.model import TriggerRule
from roost.dag.rules import Verdict
from tests.scheduler.hands import OutcomeOf, World, dag, failed, ok, skipped, task

# How each of three parents ends -> how a task of each rule ends (S77-S88, H19).
_ENDS: dict[str, OutcomeOf] = {"s": ok(), "f": failed(), "k": skipped()}
_RULES: dict[TriggerRule, dict[str, str]] = {
    "all_success": {"sss": "success", "ssf": "upstream_failed", "ssk": "skipped"},
    "all_failed": {"fff": "success", "sff": "skipped", "ffk": "skipped"},
    "all_done": {"sfk": "success", "fff": "success"},
    "all_skipped": {"kkk": "success", "skk": "skipped", "fkk": "skipped"},
    "one_failed": {"ssf": "success", "sss": "skipped", "kkk": "skipped"},
    "one_success": {"sff": "success", "kkk": "skipped", "ffk": "upstream_failed"},
    "one_done": {"skk": "success", "kkk": "skipped", "ffk": "success"},
    "none_failed": {"skk": "success", "kkk": "success", "ssf": "upstream_failed"},
    "none_skipped": {"ssf": "success", "ssk": "skipped"},
    "none_failed_min_one_success": {"skk": "success", "kkk": "skipped", "sfk": "upstream_failed"},
    "all_done_min_one_success": {"sff": "success", "fff": "upstream_failed"},
    "all_done_setup_success": {"sfk": "success"},
    "always": {"sss": "success", "fff": "success"},
}


def test_a_chain_runs_one_after_the_other_s24(world: World) -> None:
    run = world.start(task("a", "b"), task("b", "c"), task("c"))
    assert world.states() == {"a": "queued", "b": "none", "c": "none"}
    assert [world.work() for _ in "abc"] == [["a"], ["b"], ["c"]]
    assert set(world.states().values()) == {"success"}
    assert world.run_state(run) == "success"
    assert world.log("a") == ["schedule", "enqueue", "start", "succeed"]
    assert world.row("a").try_number == 1


def test_a_diamond_joins_s24(world: World) -> None:
    world.start(task("a", "b c"), task("b", "d"), task("c", "d"), task("d"))
    world.work()
    (b, c) = world.claim()
    world.end(b, ok())
    world.turns()
    assert world.states()["d"] == "none"
    world.end(c, ok())
    world.turns()
    assert world.work() == ["d"]


def test_every_trigger_rule_s77(world: World) -> None:
    """One run holds a case for each rule and each way its parents end."""
    assert set(_RULES) == set(get_args(TriggerRule))
    parents, children, outcomes, expected = [], [], {}, {}
    for rule, cases in _RULES.items():
        for ends, result in cases.items():
            name = f"{rule}_{ends}"
            children.append(task(name, trigger_rule=rule))
            expected[name] = result
            for number, end in enumerate(ends):
                parents.append(task(f"{name}_{number}", name))
                outcomes[f"{name}_{number}"] = _ENDS[end]
    world.start(*parents, *children, max_active_tasks=1000)
    while world.work(**outcomes):
        pass
    states = world.states()
    assert {name: states[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("rule", "outcome"), [("one_success", ok()), ("one_failed", failed()), ("one_done", ok())]
)
def test_an_early_rule_does_not_wait_s81_s82(
    world: World, rule: TriggerRule, outcome: OutcomeOf
) -> None:
    world.start(task("a", "c"), task("b", "c"), task("c", trigger_rule=rule))
    a, _b = world.claim()
    world.end(a, outcome)
    world.turns()
    assert world.states()["c"] == "queued"
    assert world.work() == ["c"]
    world.end(next(iter(world.held)), ok())
    world.turns()


def test_an_all_success_child_is_skipped_at_once_s78(world: World) -> None:
    world.start(task("a", "c"), task("b", "c"), task("c", "d"), task("d"))
    a, b = world.claim()
    world.end(a, skipped())
    world.turns()
    assert world.states() == {"a": "skipped", "b": "running", "c": "skipped", "d": "skipped"}
    world.end(b, ok())
    world.turns()


def test_a_branch_skips_what_it_does_not_follow_s70_s88(world: World) -> None:
    world.start(
        task("branch", "a b"),
        task("a", "follow"),
        task("b", "join"),
        task("follow", "join"),
        task("join", trigger_rule="none_failed"),
    )
    world.work(branch=ok(skip=["b"]))
    assert world.states()["b"] == "skipped"
    assert [world.work() for _ in range(3)] == [["a"], ["follow"], ["join"]]
    rows = world.fetch("SELECT reason FROM event_log WHERE event = 'skip'")
    assert [row.reason for row in rows] == ["not chosen by a branch"]


def test_a_branch_skips_none_that_has_started_h28(world: World) -> None:
    """Its sibling waits for nobody and runs, or has run and waits to run again."""
    world.start(
        task("branch", "runs lost again fresh"),
        *[task(t, trigger_rule="always") for t in ("runs", "lost")],
        task("again", trigger_rule="always", retries=1, retry_delay_us=0),
        task("fresh"),
        max_active_tasks=4,
    )
    claimed = {one.task_id: one for one in world.claim()}
    world.end(claimed["again"], failed())
    world.turns()
    world.end(claimed["branch"], ok(skip=["runs", "lost", "again", "fresh", "nobody"]))
    world.turns()
    states = world.states()
    assert states["fresh"] == "skipped"
    assert "skipped" not in (states["runs"], states["lost"], states["again"])
    for one in list(world.held):
        world.end(one, ok())
    world.turns()
    world.work()
    assert world.states()["again"] == "success"


def test_a_branch_settled_together_with_its_siblings_loss_skips_only_the_fresh_h28(
    world: World,
) -> None:
    run = world.start(
        task("branch", "lost fresh"), task("lost", trigger_rule="always"), task("fresh")
    )
    claimed = {one.task_id: one for one in world.claim()}
    world.end(claimed["branch"], ok(skip=["lost", "fresh"]))
    world.lose_worker()
    world.turns()
    world.check()
    assert world.states() == {"branch": "success", "lost": "queued", "fresh": "skipped"}
    world.work()
    assert world.run_state(run) == "success"


def test_an_operator_without_a_body_needs_no_hands_h27(world: World) -> None:
    run = world.start(
        task("a", "b", empty=True), task("b", "c d", empty=True), task("c"), task("d", empty=True)
    )
    assert world.states() == {"a": "success", "b": "success", "c": "queued", "d": "success"}
    assert world.log("a") == ["schedule", "complete"]
    assert world.row("b").try_number == 1
    assert world.work() == ["c"]
    assert world.run_state(run) == "success"


def test_a_run_of_empty_operators_ends_in_the_turn_that_starts_it_h27(world: World) -> None:
    names = [f"t{n}" for n in range(50)]
    chain = [task(a, b, empty=True) for a, b in zip(names, [*names[1:], ""], strict=True)]
    run = world.start(*chain)
    assert world.run_state(run) == "success"
    assert world.claim() == []


def test_a_dag_without_tasks_succeeds(world: World) -> None:
    assert world.run_state(world.start()) == "success"


@pytest.mark.parametrize(
    ("leaves", "end"),
    [("ss", "success"), ("sk", "success"), ("kk", "success"), ("sf", "failed"), ("ff", "failed")],
)
def test_leaves_decide_how_a_run_ends_invariant_s17(world: World, leaves: str, end: str) -> None:
    run = world.start(task("a", "b"), task("b", trigger_rule="all_done"), task("c"))
    first, second = (_ENDS[leaf] for leaf in leaves)
    world.work(a=failed(), c=second)
    world.work(b=first)
    assert world.run_state(run) == end


def test_a_failure_in_the_middle_that_is_handled_does_not_fail_the_run_invariant_s17(
    world: World,
) -> None:
    run = world.start(task("a", "b"), task("b", trigger_rule="one_failed"))
    world.work(a=failed())
    world.work()
    assert world.run_state(run) == "success"


def test_a_run_that_can_never_go_on_fails_h10(world: World) -> None:
    """Nothing of ours leaves a run like this: all of it undecided, and no rule says run."""
    run = world.start(task("a", "b"), task("b"))
    (a,) = world.claim()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roost.scheduler.plan.RULES", dict.fromkeys(_RULES, _never))
        world.store(dag("stuck", task("x"), task("y")))
        stuck = world.trigger("stuck")
        world.turns()
    assert world.states(stuck) == {"x": "none", "y": "none"}
    assert world.run_state(stuck) == "failed"
    (row,) = world.fetch("SELECT reason FROM event_log WHERE event = 'fail'")
    assert "deadlock" in row.reason
    assert world.states(run) == {"a": "running", "b": "none"}  # it awaits something
    world.end(a, ok())
    world.turns()
    world.work()
    assert world.run_state(run) == "success"


def _never(*_counts: int) -> Verdict:
    return Verdict.WAIT


def test_runs_of_several_dags_do_not_mix(world: World) -> None:
    world.store(dag("one", task("a", "b"), task("b")), dag("two", task("a", "b"), task("b")))
    one, two = world.trigger("one"), world.trigger("two")
    world.turns()
    for claimed in world.claim():
        world.end(claimed, ok() if claimed.dag_id == "one" else failed())
    world.turns()
    assert world.states(one) == {"a": "success", "b": "queued"}
    assert world.states(two) == {"a": "failed", "b": "upstream_failed"}
    assert world.run_state(two) == "failed"


def test_a_run_keeps_the_version_that_it_started_with(world: World) -> None:
    world.start(task("a", "b"), task("b"))
    world.store(dag("d", task("a", "c"), task("c")))
    world.work()
    assert world.work() == ["b"]
    world.trigger("d")
    world.turns()
    world.work()
    assert world.work() == ["c"]
