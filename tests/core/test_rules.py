"""S77-S88, H19: every trigger rule over every combination of up to three parents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag.model import TriggerRule
from roost.dag.rules import RULES, Counts, Verdict, evaluate

RULE_NAMES: tuple[TriggerRule, ...] = get_args(TriggerRule)
FINAL = ("success", "failed", "upstream_failed", "skipped", "removed")
WAIT, RUN, SKIP, UPSTREAM_FAILED = Verdict


def count(parents: Sequence[str | None]) -> Counts:
    return Counts(len(parents), *(parents.count(state) for state in FINAL))


# The oracle: each rule in the words of its row, over the states themselves; None is unfinished.
Parents = list[str | None]


def bad(parents: Parents) -> bool:
    return "failed" in parents or "upstream_failed" in parents


def ended(parents: Parents) -> bool:
    return None not in parents


def only(parents: Parents, *states: str) -> bool:
    return set(parents) <= set(states)


def all_success(p: Parents) -> Verdict:  # S78
    if bad(p):
        return UPSTREAM_FAILED
    return SKIP if "skipped" in p else RUN if only(p, "success") else WAIT


def all_failed(p: Parents) -> Verdict:  # S79
    if "success" in p or "skipped" in p:
        return SKIP
    return RUN if only(p, "failed", "upstream_failed") else WAIT


def all_done(p: Parents) -> Verdict:  # S80
    return RUN if ended(p) else WAIT


def one_failed(p: Parents) -> Verdict:  # S81, S84/S86
    return RUN if bad(p) else SKIP if ended(p) else WAIT


def one_success(p: Parents) -> Verdict:  # S82
    if "success" in p:
        return RUN
    if not ended(p):
        return WAIT
    return SKIP if only(p, "skipped") else UPSTREAM_FAILED


def none_failed(p: Parents) -> Verdict:  # S83
    return UPSTREAM_FAILED if bad(p) else RUN if ended(p) else WAIT


def none_skipped(p: Parents) -> Verdict:  # S84
    return SKIP if "skipped" in p else RUN if ended(p) else WAIT


def one_done(p: Parents) -> Verdict:  # H19
    return RUN if "success" in p or "failed" in p else SKIP if ended(p) else WAIT


def all_skipped(p: Parents) -> Verdict:  # H19
    return RUN if only(p, "skipped") else WAIT if only(p, "skipped", None) else SKIP  # type: ignore[arg-type]


def none_failed_min_one_success(p: Parents) -> Verdict:  # H19, S83
    if bad(p):
        return UPSTREAM_FAILED
    return WAIT if not ended(p) else RUN if "success" in p else SKIP


def all_done_min_one_success(p: Parents) -> Verdict:  # H19: a skipped parent is not done
    if "skipped" in p:
        return SKIP
    return WAIT if not ended(p) else RUN if "success" in p else UPSTREAM_FAILED


def always(p: Parents) -> Verdict:  # S85
    return RUN


ORACLE: dict[TriggerRule, Callable[[Parents], Verdict]] = {
    "all_success": all_success,
    "all_failed": all_failed,
    "all_done": all_done,
    "all_skipped": all_skipped,
    "one_failed": one_failed,
    "one_success": one_success,
    "one_done": one_done,
    "none_failed": none_failed,
    "none_skipped": none_skipped,
    "none_failed_min_one_success": none_failed_min_one_success,
    "all_done_min_one_success": all_done_min_one_success,
    "all_done_setup_success": all_done,
    "always": always,
}


def says(rule: TriggerRule, parents: Parents, setups: Sequence[bool] = ()) -> Verdict:
    """What the rows say of these parents, of which some may be setup tasks."""
    marks = setups or [False] * len(parents)
    present = [(state, setup) for state, setup in zip(parents, marks, strict=True)
               if state != "removed"]  # fmt: skip
    if not present:
        return RUN  # S87
    asked = [state for state, setup in present if setup]
    if rule == "all_done_setup_success" and asked and ended([state for state, _ in present]):
        # H18: one setup that succeeded is enough to tear down; skipped with all of its setups.
        if "success" in asked:
            return RUN
        return SKIP if only(asked, "skipped") else UPSTREAM_FAILED
    return ORACLE[rule]([state for state, _ in present])


def count_all(parents: Parents, setups: Sequence[bool]) -> Counts:
    """As a scheduler counts them."""
    asked = [s for s, setup in zip(parents, setups, strict=True) if setup and s != "removed"]
    return count(parents)._replace(
        setups=len(asked),
        setup_success=asked.count("success"),
        setup_skipped=asked.count("skipped"),
    )


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_every_combination_of_up_to_three_parents_with_setups_h18(rule: TriggerRule) -> None:
    """Only `all_done_setup_success` looks at which of them are setups."""
    for size in range(4):
        for parents in itertools.product((None, *FINAL), repeat=size):
            for setups in itertools.product((False, True), repeat=size):
                want = says(rule, list(parents), setups)
                assert evaluate(rule, count_all(list(parents), setups)) is want, (parents, setups)


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_every_combination_of_up_to_three_parents_s78_s87_h19(rule: TriggerRule) -> None:
    """S78-S87, H19: each rule over each state of each parent, those not done and removed too."""
    for size in range(4):
        for parents in itertools.product((None, *FINAL), repeat=size):
            present = [state for state in parents if state != "removed"]
            want = ORACLE[rule](present) if present else RUN  # S87
            assert evaluate(rule, count(parents)) is want, (rule, parents)


def test_every_rule_of_the_model_has_an_evaluation() -> None:
    assert set(RULES) == set(RULE_NAMES) == set(ORACLE)


states = st.sampled_from([None, *FINAL])
rules = st.sampled_from(RULE_NAMES)


@given(rules, st.lists(states, max_size=30))
def test_any_number_of_parents(rule: TriggerRule, parents: list[str | None]) -> None:
    present = [state for state in parents if state != "removed"]
    assert evaluate(rule, count(parents)) is (ORACLE[rule](present) if present else RUN)


@given(rules, st.lists(st.sampled_from(FINAL), max_size=30))
def test_a_task_whose_parents_all_ended_never_waits(rule: TriggerRule, parents: list[str]) -> None:
    assert evaluate(rule, count(parents)) is not WAIT


@given(rules, st.lists(states, max_size=8), st.data())
def test_a_rule_that_waits_is_not_moved_by_a_parent_that_is_cleared(
    rule: TriggerRule, parents: list[str | None], data: st.DataObject
) -> None:
    """So a board need not look at a waiting child again when its parent becomes unfinished."""
    if evaluate(rule, count(parents)) is not WAIT:
        return
    cleared = [data.draw(st.sampled_from([state, None])) for state in parents]
    present = [state for state in cleared if state != "removed"]
    assert not present or evaluate(rule, count(cleared)) is WAIT


def test_branch_and_join_s88() -> None:
    assert evaluate("all_success", count(["success", "skipped"])) is SKIP
    assert evaluate("none_failed", count(["success", "skipped"])) is RUN
    assert evaluate("none_failed", count(["skipped", None])) is WAIT


@pytest.mark.parametrize(
    ("setups", "want"),
    [
        (["success"], RUN),
        (["success", "failed"], RUN),
        (["skipped", "skipped"], SKIP),
        (["skipped", "failed"], UPSTREAM_FAILED),
        (["failed"], UPSTREAM_FAILED),
        (["success", None], WAIT),
    ],
)
def test_teardown_follows_its_setups_h18(setups: list[str | None], want: Verdict) -> None:
    work = ["failed", "skipped"]
    counts = count([*setups, *work])._replace(
        setups=len(setups),
        setup_success=setups.count("success"),
        setup_skipped=setups.count("skipped"),
    )
    assert evaluate("all_done_setup_success", counts) is want
    assert evaluate("all_done", counts) in (RUN, WAIT), "other rules do not look at setups"


def test_done_counts_every_final_state() -> None:
    assert count([None, *FINAL]).done == len(FINAL)
