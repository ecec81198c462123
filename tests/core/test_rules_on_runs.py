"""S77-S88, H18, H19: the table of trigger rules, as whole runs of random DAGs follow it.

The oracle is that of test_rules.py: each rule in the words of its row. Here it also says *when* a
task is decided: at the first moment at which its rule has a verdict.
"""

from __future__ import annotations

from typing import get_args

from hypothesis import event, given, settings
from hypothesis import strategies as st

from roost.dag.model import SerializedDag, SerializedTask, SerializedTimetable, TriggerRule
from roost.dag.rules import Verdict
from roost.models.states import FINISHED
from roost.scheduler.board import Board
from roost.scheduler.plan import Plan
from tests.core.test_rules import says

RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
ENDINGS = ["success", "success", "failed", "skipped"]
AFTER = {Verdict.RUN: "scheduled", Verdict.SKIP: "skipped"}


@st.composite
def dags(draw: st.DrawFn) -> list[SerializedTask]:
    size = draw(st.integers(1, 12))
    tasks = []
    for i in range(size):
        below = [str(c) for c in range(i + 1, size) if draw(st.integers(0, 2)) == 0]
        rule, setup = draw(st.sampled_from(RULES)), draw(st.booleans())
        tasks.append(SerializedTask(str(i), "Op", below, trigger_rule=rule, setup=setup))
    return tasks


class Reference:
    """A run by the rows alone: states by task, decided one task after the other."""

    def __init__(self, tasks: list[SerializedTask], removed: set[int]) -> None:
        self.tasks = tasks
        self.states: list[str] = ["removed" if i in removed else "none" for i in range(len(tasks))]

    def decide(self) -> None:
        for i, task in enumerate(self.tasks):
            if self.states[i] != "none":
                continue
            above = [p for p, up in enumerate(self.tasks) if task.task_id in up.downstream]
            ended = [self.states[p] if self.states[p] in FINISHED else None for p in above]
            verdict = says(task.trigger_rule, ended, [self.tasks[p].setup for p in above])
            if verdict is not Verdict.WAIT:
                self.states[i] = AFTER.get(verdict, verdict.value)


@settings(max_examples=300, deadline=None)
@given(dags(), st.data())
def test_runs_follow_the_table_to_their_end_s77_s88_h18_h19(
    tasks: list[SerializedTask], data: st.DataObject
) -> None:
    removed = data.draw(st.sets(st.integers(0, len(tasks) - 1), max_size=2))
    plan = Plan.compile(SerializedDag("d", SerializedTimetable("null"), tasks))
    present = [i for i in range(len(tasks)) if i not in removed]
    board = Board(plan, [(i + 1, tasks[i].task_id, -1, None) for i in present])
    reference = Reference(tasks, removed)
    steps = 0
    while True:
        board.decide()
        reference.decide()
        assert board.states == reference.states
        live = [i for i, state in enumerate(board.states) if state == "scheduled"]
        if not live:
            break
        index = data.draw(st.sampled_from(live))
        reference.states[index] = ending = data.draw(st.sampled_from(ENDINGS))
        board.settle(index, ending)
        steps += 1
    event(f"{steps} tasks ran")
    assert FINISHED.issuperset(board.states)
    leaves = [board.states[i] for i, task in enumerate(tasks) if not task.downstream]
    bad = {"failed", "upstream_failed"}.intersection(leaves)
    assert board.outcome() == ("failed" if bad else "success")
