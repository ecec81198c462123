"""Limits of single tasks in the line: never exceeded, and they hide nobody (H4)."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.models.queries.runs import InstanceRow, RunRow
from roost.models.states import State
from roost.scheduler.book import ActiveRun, Version, Waiting
from roost.scheduler.plan import Plan
from roost.scheduler.ready import Ready
from tests.scheduler.hands import dag, task

_TASKS = 6
_LIMITS = st.sampled_from([None, 1, 2])


class Limits(NamedTuple):
    """Of one task of the DAG."""

    over_all: int | None
    in_run: int | None


def runs_of(limits: list[Limits], weights: list[int], room: list[int]) -> list[ActiveRun]:
    """One run for each of ``room``, which is its max_active_tasks; every task waits."""
    made = []
    for key, most in enumerate(room, start=1):
        one = dag(
            "d",
            *[
                task(
                    f"t{n}",
                    priority_weight=weights[n],
                    max_active_tis_per_dag=limits[n].over_all,
                    max_active_tis_per_dagrun=limits[n].in_run,
                )
                for n in range(_TASKS)
            ],
            max_active_tasks=most,
        )
        row = RunRow(key, "d", f"r{key}", "manual", "running", 1, key, key, 0)
        rows = [
            InstanceRow(key * 100 + n, f"t{n}", -1, State.SCHEDULED, 1, 0, None, None, None, None)
            for n in range(_TASKS)
        ]
        run = ActiveRun(row, Version(1, "d", "c", "f", Plan.compile(one)), rows, {})
        run.waiting = {n: Waiting((), {}) for n in range(_TASKS)}
        made.append(run)
    return made


class Line:
    """Runs of one DAG whose tasks all stand in line, and what has gone."""

    def __init__(self, limits: list[Limits], weights: list[int], room: list[int]) -> None:
        self.limits = limits
        self.runs = runs_of(limits, weights, room)
        self.ready = Ready()
        self.inside: list[tuple[ActiveRun, int]] = []
        self.went: Counter[tuple[int, int]] = Counter()
        for run in self.runs:
            for index in run.waiting:
                self.ready.add(run, index)

    def left(self, index: int) -> float:
        limit = self.limits[index].over_all
        return math.inf if limit is None else limit - sum(n == index for _, n in self.inside)

    def left_in(self, run: ActiveRun, index: int) -> float:
        limit = self.limits[index].in_run
        here = sum(one is run and n == index for one, n in self.inside)
        return math.inf if limit is None else limit - here

    def admit(self, slots: int, free: int) -> None:
        rooms = {("d", f"t{n}"): self.left(n) for n in range(_TASKS)}
        told = {key: int(n) for key, n in rooms.items() if n != math.inf}
        assert set(self.ready.shared) <= set(told)
        self.ready.let_in(told)
        admitted = self.ready.admit(slots, {"default_pool": 100 * free}).candidates
        for one in admitted:
            self.went[one.run.key, one.task] += 1
            del one.run.waiting[one.task]
            self.inside.append((one.run, one.task))
        assert len(admitted) <= min(slots, free)
        assert all(self.left(n) >= 0 for n in range(_TASKS))
        assert all(self.left_in(run, n) >= 0 for run in self.runs for n in range(_TASKS))
        if len(admitted) < min(slots, free):
            assert not any(self.could_go(run, n) for run in self.runs for n in run.waiting)

    def could_go(self, run: ActiveRun, index: int) -> bool:
        if run.paused or run.in_flight >= run.max_active_tasks:
            return False
        return self.left(index) > 0 and self.left_in(run, index) > 0

    def end(self, pick: int) -> None:
        run, index = self.inside.pop(pick % len(self.inside))
        run.in_flight -= 1
        if f"t{index}" in run.active:
            run.active[f"t{index}"] -= 1
        self.ready.unpark(run)

    def pause(self, run: ActiveRun, paused: bool) -> None:
        run.paused = paused
        self.ready.unpark(run)


@settings(max_examples=300)
@given(
    limits=st.lists(st.builds(Limits, _LIMITS, _LIMITS), min_size=_TASKS, max_size=_TASKS),
    weights=st.lists(st.integers(-2, 2), min_size=_TASKS, max_size=_TASKS),
    room=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    turns=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), max_size=8),
)
def test_limits_of_tasks_hold_and_hide_nobody_h4(
    limits: list[Limits], weights: list[int], room: list[int], turns: list[tuple[int, int, int]]
) -> None:
    """Admissions, ends and pauses in any mix; in the end everybody has gone exactly once."""
    line = Line(limits, weights, room)
    for slots, free, pick in turns:
        run = line.runs[pick % len(line.runs)]
        if pick % 3 == 0:
            line.pause(run, not run.paused)
        line.admit(slots, free)
        if line.inside:
            line.end(pick)
    for run in line.runs:
        line.pause(run, False)
    while len(line.went) < len(line.runs) * _TASKS:
        before = len(line.went)
        line.admit(9, 9)
        assert line.inside or len(line.went) > before
        line.end(0)
    assert set(line.went.values()) == {1}
    assert len(line.ready) == 0
