"""The board of a run: what may start, what is decided without running, how the run ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from roost.dag.model import (
    EdgeError,
    SerializedDag,
    SerializedTask,
    SerializedTimetable,
    TriggerRule,
)
from roost.dag.rules import Counts, Verdict, evaluate
from roost.models.states import FINISHED, State
from roost.scheduler.board import Board, Decisions, Plan

RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
TO_STATE = {
    Verdict.RUN: State.SCHEDULED,
    Verdict.SKIP: State.SKIPPED,
    Verdict.UPSTREAM_FAILED: State.UPSTREAM_FAILED,
}


def make_plan(edges: dict[str, str], **rules: TriggerRule) -> Plan:
    """A plan from task_id -> its downstream task_ids, in topological order."""
    tasks = [
        SerializedTask(
            task_id=task_id,
            operator="Empty",
            downstream=below.split(),
            trigger_rule=rules.get(task_id, "all_success"),
        )
        for task_id, below in edges.items()
    ]
    return Plan.compile(SerializedDag("dag", SerializedTimetable("null"), tasks))


def make_board(plan: Plan, states: Sequence[str | None] | None = None) -> Board:
    states = states or [State.NONE] * len(plan)
    return Board(
        plan,
        [(100 + i, plan.tasks[i].task_id, -1, state) for i, state in enumerate(states)],
    )


def settle(board: Board, **states: str | None) -> None:
    for task_id, state in states.items():
        board.settle(board.plan.index[task_id], state)


def named(plan: Plan, indices: Sequence[int]) -> str:
    return " ".join(plan.tasks[i].task_id for i in indices)


def decide(board: Board) -> tuple[str, str, str]:
    run, skip, upstream_failed, _ = board.decide()
    plan = board.plan
    return named(plan, run), named(plan, skip), named(plan, upstream_failed)


BRANCH = {"branch": "a b", "a": "follow", "b": "join", "follow": "join", "join": ""}


def test_roots_start_at_creation_and_children_after_success_s24() -> None:
    board = make_board(make_plan({"a": "b", "b": "", "c": ""}))
    assert decide(board) == ("a c", "", "")
    assert board.states == [State.SCHEDULED, State.NONE, State.SCHEDULED]
    assert decide(board) == ("", "", "")
    settle(board, a="running")
    assert decide(board) == ("", "", "")
    settle(board, a="success")
    assert decide(board) == ("b", "", "")


def test_a_failure_cascades_within_one_call() -> None:
    board = make_board(make_plan({"a": "b", "b": "c", "c": "d e", "d": "", "e": ""}, e="all_done"))
    decide(board)
    settle(board, a="failed")
    assert decide(board) == ("e", "", "b c d")
    settle(board, e="success")
    assert board.outcome() == "failed", "the leaf d did not run"


def test_the_order_of_settling_within_a_call_does_not_matter() -> None:
    for order in (("d", "skipped", "a", "failed"), ("a", "failed", "d", "skipped")):
        board = make_board(make_plan({"a": "b", "d": "c", "b": "c", "c": ""}))
        decide(board)
        settle(board, **{order[0]: order[1]})
        settle(board, **{order[2]: order[3]})
        assert decide(board) == ("", "", "b c"), "b is examined before c"


def test_the_worked_example_of_branching_s88() -> None:
    for rule, want in (("all_success", ("", "join", "")), ("none_failed", ("join", "", ""))):
        board = make_board(make_plan(BRANCH, join=rule))  # type: ignore[arg-type]
        decide(board)
        settle(board, branch="success")
        assert named(board.plan, board.force_skip([board.plan.index["b"]])) == "b"
        run, skip, _ = decide(board)
        assert run == "a"
        settle(board, a="success")
        assert decide(board)[0] == "follow"
        settle(board, follow="success")
        later = decide(board)
        assert (later[0], skip + later[1], later[2]) == want


def test_a_direct_skip_never_overwrites_what_started_h28() -> None:
    live = [State.QUEUED, State.RUNNING, State.DEFERRED, State.UP_FOR_RETRY]
    done = [State.SUCCESS, State.FAILED, State.UPSTREAM_FAILED, State.SKIPPED]
    board = make_board(
        make_plan(dict.fromkeys([*live, *done, "none", "scheduled"], "")),
        [*live, *done, State.NONE, State.SCHEDULED],
    )
    assert named(board.plan, board.force_skip(range(len(board.plan)))) == "none scheduled"
    assert board.states[: len(live) + len(done)] == [*live, *done]


def test_a_task_held_by_the_past_runs_when_released_s89() -> None:
    board = make_board(make_plan({"a": "b c", "b": "", "c": ""}))
    a, b, c = range(3)
    board.set_held([a, b])
    assert decide(board) == ("", "", "")
    assert board.held(a)
    assert not board.held(b), "b waits for a as well"
    assert not board.deadlocked()
    board.set_held([b])
    assert decide(board) == ("a", "", "")
    settle(board, a="success")
    assert decide(board) == ("c", "", "")
    board.set_held([])
    assert decide(board) == ("b", "", "")
    assert not board.held(c)


def test_a_held_task_is_still_decided_without_running() -> None:
    board = make_board(make_plan({"a": "b", "b": ""}))
    board.set_held([1])
    decide(board)
    settle(board, a="failed")
    assert decide(board) == ("", "", "b")


def test_outcome_is_that_of_the_leaves() -> None:
    board = make_board(make_plan({"a": "b", "b": ""}, b="all_done"))
    decide(board)
    settle(board, a="failed")
    assert board.outcome() is None
    decide(board)
    settle(board, b="success")
    assert board.outcome() == "success"
    settle(board, b="failed")
    assert board.outcome() == "failed"
    settle(board, b="success")  # by hand
    assert board.outcome() == "success"
    assert make_board(make_plan({"a": ""}), [State.SKIPPED]).outcome() == "success"
    assert make_board(make_plan({})).outcome() == "success"


def test_a_cleared_task_is_decided_again() -> None:
    board = make_board(make_plan({"a": "b", "b": ""}), [State.FAILED, State.UPSTREAM_FAILED])
    assert board.outcome() == "failed"
    settle(board, b=None)
    settle(board, a="none")
    assert board.unfinished == 2
    assert decide(board) == ("a", "", "")
    settle(board, a="success")
    assert decide(board) == ("b", "", "")


def test_missing_and_unknown_instances_do_not_count() -> None:
    plan = make_plan({"a": "c", "b": "c", "c": ""})
    rows = [(1, "a", -1, "success"), (3, "c", -1, "none"), (9, "old", -1, "none")]
    board = Board(plan, [*rows, (10, "a", 0, "none")])
    assert board.missing == [1]
    assert board.unknown == [9, 10]
    assert [board.index_of(ti_id) for ti_id in (1, 3, 9)] == [0, 2, None]
    assert board.ti_ids == [1, -1, 3]
    assert decide(board) == ("c", "", "")
    assert board.counts(2) == Counts(total=2, success=1, removed=1)


def test_what_a_task_waits_for() -> None:
    board = make_board(make_plan({"a": "c", "b": "c", "c": ""}))
    decide(board)
    settle(board, a="success")
    assert board.blocked_upstreams(2) == [1]
    assert board.verdict(2) is Verdict.WAIT
    settle(board, b="failed")
    assert board.blocked_upstreams(2) == []
    assert board.verdict(2) is Verdict.UPSTREAM_FAILED


def test_a_run_with_anything_live_or_due_is_not_deadlocked_h10() -> None:
    board = make_board(make_plan({"a": "b", "b": ""}))
    assert not board.deadlocked(), "a is to be examined"
    decide(board)
    for state in State:
        settle(board, a=state)
        decide(board)
        assert not board.deadlocked()


def test_a_plan_refuses_what_is_not_a_dag() -> None:
    for edges in ({"a": "b"}, {"a": "", "b": "a"}, {"a": "a"}):
        with pytest.raises(EdgeError):
            make_plan(edges)
    with pytest.raises(EdgeError, match="two tasks"):
        Plan.compile(
            SerializedDag("d", SerializedTimetable("null"), [SerializedTask("a", "E")] * 2)
        )


def test_an_edge_given_twice_counts_once() -> None:
    board = make_board(make_plan({"a": "b b", "b": ""}))
    decide(board)
    settle(board, a="success")
    assert decide(board) == ("b", "", "")


# --- a board kept up to date decides what one built anew, and plain reading of the rules, decide


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 10))
    tasks = [
        SerializedTask(
            task_id=str(i),
            operator="Empty",
            downstream=[str(c) for c in range(i + 1, size) if draw(st.booleans())],
            trigger_rule=draw(st.sampled_from(RULES)),
        )
        for i in range(size)
    ]
    return Plan.compile(SerializedDag("dag", SerializedTimetable("null"), tasks))


def from_scratch(plan: Plan, states: list[str], held: frozenset[int]) -> Decisions:
    """What the rules say, read off the states alone, parents before children."""
    decisions = Decisions([], [], [], [])
    states = list(states)
    for i, task in enumerate(plan.tasks):
        if states[i] != State.NONE:
            continue
        above = [states[p] for p, t in enumerate(plan.tasks) if task.task_id in t.downstream]
        kinds = ("success", "failed", "upstream_failed", "skipped", "removed")
        counts = Counts(len(above), *(above.count(kind) for kind in kinds))
        verdict = evaluate(task.trigger_rule, counts)
        if verdict is Verdict.WAIT or (verdict is Verdict.RUN and i in held):
            continue
        states[i] = TO_STATE[verdict]
        into = {Verdict.RUN: decisions.run, Verdict.SKIP: decisions.skip}
        into.get(verdict, decisions.upstream_failed).append(i)
    return decisions


def outcome_from_scratch(plan: Plan, states: list[str]) -> str | None:
    if not FINISHED.issuperset(states):
        return None
    leaves = [states[i] for i, task in enumerate(plan.tasks) if not task.downstream]
    return "failed" if {"failed", "upstream_failed"}.intersection(leaves) else "success"


@settings(max_examples=300, deadline=None)
@given(plans(), st.data())
def test_any_interleaving_decides_what_a_fresh_look_would(plan: Plan, data: st.DataObject) -> None:
    board, held = make_board(plan), frozenset[int]()
    indices = st.integers(0, len(plan) - 1)
    for _ in range(data.draw(st.integers(1, 14))):
        action = data.draw(st.sampled_from(["settle", "settle", "decide", "skip", "hold"]))
        event(action)
        if action == "settle":
            board.settle(data.draw(indices), data.draw(st.sampled_from([*State, None])))
        elif action == "skip":
            board.force_skip(data.draw(st.lists(indices)))
        elif action == "hold":
            held = frozenset(data.draw(st.lists(indices)))
            board.set_held(held)
        else:
            fresh = make_board(plan, board.states)
            fresh.set_held(held)
            want = from_scratch(plan, board.states, held)
            assert board.decide() == want == fresh.decide()
            assert board.states == fresh.states
        compare(board, make_board(plan, board.states))
    board.set_held([])
    board.decide()
    assert board.decide() == Decisions([], [], [], []), "one call decides all that follows"


def compare(board: Board, fresh: Board) -> None:
    plan = board.plan
    assert board.unfinished == fresh.unfinished == sum(s not in FINISHED for s in board.states)
    assert board.outcome() == fresh.outcome() == outcome_from_scratch(plan, board.states)
    for i in range(len(plan)):
        assert board.counts(i) == fresh.counts(i)
        assert board.verdict(i) is fresh.verdict(i)


@given(plans(), st.data())
def test_a_run_always_ends_and_each_task_is_decided_once(plan: Plan, data: st.DataObject) -> None:
    board = make_board(plan)
    decided: list[int] = []
    while True:
        for group in board.decide():
            decided += group
        live = [i for i, state in enumerate(board.states) if state not in FINISHED]
        assert not board.deadlocked()
        if not live:
            break
        index = data.draw(st.sampled_from([i for i in live if board.states[i] != State.NONE]))
        board.settle(index, data.draw(st.sampled_from(["success", "failed", "skipped"])))
    assert sorted(decided) == list(range(len(plan)))
    assert board.outcome() is not None
