"""What a branch skips (S70-S73, S88)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.dag import TaskGroup
from roost.dag.branching import branch_skips
from roost.dag.graph import reachable
from roost.exceptions import DagError
from roost.operators import BranchPythonOperator, EmptyOperator
from tests.dag.case import FakeSupervisor, a_dag, raw, run


def diamond() -> Any:
    """S88: branch -> branch_a -> follow_branch_a -> join, branch -> branch_false -> join."""
    with a_dag() as dag:
        branch = EmptyOperator(task_id="branch")
        a, follow, false, join = (
            EmptyOperator(task_id=name)
            for name in ("branch_a", "follow_branch_a", "branch_false", "join")
        )
        branch >> a >> follow >> join
        branch >> false >> join
    return dag


def test_s70_the_other_direct_children_are_skipped() -> None:
    branch = diamond().get_task("branch")
    assert branch_skips(branch, "branch_a") == ["branch_false"]
    assert branch_skips(branch, ["branch_false"]) == ["branch_a"]
    assert branch_skips(branch, ["branch_a", "branch_false"]) == []
    assert branch_skips(branch, None) == ["branch_a", "branch_false"]
    assert branch_skips(branch, []) == ["branch_a", "branch_false"]


def test_s71_only_direct_children_can_be_chosen() -> None:
    branch = diamond().get_task("branch")
    for wrong in ("join", "nothing", ["branch_a", "join"]):
        with pytest.raises(DagError, match=r"not directly downstream.*branch_a, branch_false"):
            branch_skips(branch, wrong)
    with pytest.raises(DagError, match="must choose task ids"):
        branch_skips(branch, 5)  # type: ignore[arg-type]


def test_s72_a_child_that_is_also_a_join_stays() -> None:
    dag = diamond()
    dag.get_task("branch") >> dag.get_task("join")
    assert branch_skips(dag.get_task("branch"), "branch_a") == ["branch_false"]


def test_a_group_can_be_chosen() -> None:
    with a_dag():
        branch = EmptyOperator(task_id="branch")
        with TaskGroup("g") as group:
            EmptyOperator(task_id="x") >> EmptyOperator(task_id="y")
        other = EmptyOperator(task_id="other")
        branch >> [group, other]
    assert branch_skips(branch, "g") == ["other"]
    assert branch_skips(branch, "other") == ["g.x"]


def test_s73_the_operator_decides_by_xcom_and_reports_the_skips() -> None:
    with a_dag():
        branch = BranchPythonOperator(
            task_id="branch", python_callable=lambda ti: ti.xcom_pull(task_ids="start")
        )
        branch >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
    supervisor = FakeSupervisor()
    supervisor.xcoms["start", "return_value"] = raw("b")
    outcome, values = run(branch, supervisor)
    assert (outcome.kind, outcome.skip, values) == ("success", ["a"], {"return_value": "b"})
    supervisor.xcoms["start", "return_value"] = raw("wrong")
    outcome, _ = run(branch, supervisor)
    assert (outcome.kind, outcome.skip) == ("failed", [])


@given(st.data())
def test_s72_nothing_that_a_followed_task_leads_to_is_skipped(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 9))
    with a_dag() as dag:
        tasks = [EmptyOperator(task_id=f"t{i}") for i in range(count)]
    for i in range(count):
        for j in data.draw(st.sets(st.integers(0, count - 1))):
            if i < j:
                tasks[i] >> tasks[j]
    children = list(tasks[0].downstream)
    chosen = data.draw(st.lists(st.sampled_from(children), unique=True)) if children else []
    skips = branch_skips(tasks[0], chosen)
    kept = reachable({t.task_id: t.downstream for t in dag.tasks}, chosen)
    assert set(skips) == set(children) - kept
