"""When a wait for runs, or tasks in them, is over."""

from __future__ import annotations

from typing import Any

import pytest

from roost.dag.runwait import RunWait, keys_of_run, verdict
from roost.support.task_requests import RunRecord


def test_a_wait_is_found_by_the_keys_of_its_run() -> None:
    keys = keys_of_run("d", "r", 7)
    assert RunWait("d", run_id="r").key in keys
    assert RunWait("d", logical_dates=[7]).key in keys
    assert RunWait("d", logical_dates=[7, 8]).key in keys
    others = [RunWait("d", run_id="s"), RunWait("d", logical_dates=[8]), RunWait("e", run_id="r")]
    assert not {wait.key for wait in others} & set(keys)
    # No id of a DAG holds a slash or an at sign, so no two waits share a key by accident.
    assert keys_of_run("d", "r", None) == ["roost:run/d", "roost:run/d/r"]


@pytest.mark.parametrize(
    ("state", "end"),
    [("queued", None), ("running", None), ("success", "success"), ("failed", "failed")],
)
def test_a_run(state: str, end: str | None) -> None:
    wait = RunWait("d", run_id="r")
    assert verdict(wait, [RunRecord("other", "success"), RunRecord("r", state)]) == end


def test_a_run_that_is_not_there() -> None:
    assert verdict(RunWait("d", run_id="r"), []) is None
    assert verdict(RunWait("d", run_id="r", must_exist=True), []) == "gone"


def test_every_logical_date_counts_and_the_best_run_of_each() -> None:
    wait = RunWait("d", logical_dates=[1, 2])
    one = [RunRecord("a", "success", 1), RunRecord("b", "failed", 1)]
    assert verdict(wait, one) is None
    assert verdict(wait, [*one, RunRecord("c", "success", 2)]) == "success"
    assert verdict(wait, [*one, RunRecord("c", "failed", 2)]) == "failed"
    assert verdict(wait, [RunRecord("b", "failed", 1)]) == "failed"
    assert verdict(wait, [RunRecord("b", "failed", 1), RunRecord("a", "running", 1)]) is None


@pytest.mark.parametrize(
    ("states", "end"),
    [
        ({}, None),
        ({"a": ["success"]}, None),
        ({"a": ["success"], "b": ["success", "running"]}, None),
        ({"a": ["success"], "b": ["success", "success"]}, "success"),
        ({"a": ["success"], "b": ["success", "failed"]}, "failed"),
        ({"a": ["running"], "b": ["failed"]}, "failed"),
        ({"a": ["skipped"], "b": ["success"]}, "skipped"),
    ],
)
def test_tasks_of_a_run_with_all_their_instances(states: dict[str, Any], end: str | None) -> None:
    wait = RunWait("d", run_id="r", task_ids=["a", "b"], skipped=("skipped",))
    assert verdict(wait, [RunRecord("r", "running", None, states)]) == end
