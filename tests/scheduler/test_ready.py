"""Who goes next: no limit exceeded, the best first, nobody lost, no pool starved (S42-S44, H4)."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.models.queries.runs import InstanceRow, RunRow
from roost.models.states import State
from roost.scheduler.book import ActiveRun, Version, Waiting
from roost.scheduler.plan import Plan
from roost.scheduler.ready import Candidate, Ready, lane_of, need_of
from tests.scheduler.hands import dag, task

_POOLS = ("a", "b", "gone")


class Case(NamedTuple):
    """Runs with everything waiting, and the free hundredths of each pool that exists."""

    runs: list[ActiveRun]
    free: dict[str, int]


def active(
    key: int, tasks: list[tuple[str, int, int]], limit: int, date: int, holding: dict[int, int]
) -> ActiveRun:
    """A run whose tasks ``(pool, slots, weight)`` all wait."""
    one = dag(
        "d",
        *[
            task(
                f"t{n}", pool=pool, pool_slots=slots, priority_weight=weight, weight_rule="absolute"
            )
            for n, (pool, slots, weight) in enumerate(tasks)
        ],
        max_active_tasks=limit,
    )
    row = RunRow(key, "d", f"r{key}", "manual", "running", 1, date, date, 0)
    instances = [
        InstanceRow(key * 100 + n, f"t{n}", -1, State.SCHEDULED, 1, 0, None, None, None, None)
        for n in range(len(tasks))
    ]
    run = ActiveRun(row, Version(1, "d", "c", "f", Plan.compile(one)), instances, {})
    run.waiting = {n: Waiting((), {}) for n in range(len(tasks))}
    run.holding = dict(holding)
    run.resumed = set(holding)
    return run


@st.composite
def cases(draw: st.DrawFn) -> Case:
    tasks = st.tuples(st.sampled_from(_POOLS), st.integers(1, 3), st.integers(-3, 3))
    runs = []
    percents = {name: draw(st.sampled_from([0, 40, 100])) for name in _POOLS}
    for key in range(1, draw(st.integers(1, 4)) + 1):
        made = draw(st.lists(tasks, min_size=1, max_size=8))
        if draw(st.booleans()):
            made = [("a", slots, weight) for _, slots, weight in made]
        back = draw(st.sets(st.integers(0, len(made) - 1), max_size=2))
        holding = {n: percents[made[n][0]] for n in back}
        runs.append(active(key, made, draw(st.integers(1, 4)), draw(st.integers(0, 2)), holding))
    return Case(runs, {"a": draw(st.integers(0, 600)), "b": draw(st.integers(0, 6)) * 100})


def line_up(case: Case) -> Ready:
    ready = Ready()
    for run in case.runs:
        for index in run.waiting:
            ready.add(run, index)
    return ready


def need(one: Candidate) -> int:
    """What a candidate takes of its pool, in hundredths, besides what it holds already."""
    held = one.run.holding.get(one.task, 0)
    return int(one.run.board.plan.tasks[one.task].pool_slots * (100 - held))


def pool(one: Candidate) -> str:
    return one.run.board.plan.tasks[one.task].pool


@given(case=cases(), slots=st.integers(0, 12))
def test_no_limit_is_ever_exceeded(case: Case, slots: int) -> None:
    ready = line_up(case)
    before = {run.key: run.in_flight for run in case.runs}
    admitted, *_ = ready.admit(slots, case.free)
    assert len(admitted) <= slots
    assert len({(one.run.key, one.task) for one in admitted}) == len(admitted)
    taken: Counter[str] = Counter()
    for one in admitted:
        taken[pool(one)] += need(one)
    assert all(taken[name] <= case.free.get(name, 0) for name in _POOLS)
    by_run = Counter(one.run.key for one in admitted)
    for run in case.runs:
        assert run.in_flight == before[run.key] + by_run[run.key]
        assert run.in_flight <= run.max_active_tasks


@settings(max_examples=300)
@given(case=cases(), slots=st.integers(0, 12))
def test_whoever_is_left_out_is_left_out_for_a_reason(case: Case, slots: int) -> None:
    """With the limits as they are afterwards, no one who still waits could go."""
    ready = line_up(case)
    admitted, _, kept = ready.admit(slots, case.free)
    gone = {(one.run.key, one.task) for one in admitted}
    room = Counter(case.free)
    for one in admitted:
        room[pool(one)] -= need(one)
    if len(admitted) == slots:
        return
    for run in case.runs:
        for index in run.waiting:
            if (run.key, index) in gone or run.in_flight >= run.max_active_tasks:
                continue
            left = run.board.plan.tasks[index]
            if left.pool not in kept or not need_of(run, index):
                assert need_of(run, index) > room[left.pool]
    for name in kept:
        assert any(
            run.board.plan.tasks[index].pool == name and need_of(run, index) > room[name]
            for run in case.runs
            for index in run.resumed
            if (run.key, index) not in gone
        ), f"pool {name} keeps slots for nobody"


@given(case=cases(), slots=st.integers(0, 12))
def test_the_best_goes_first_s43(case: Case, slots: int) -> None:
    """Nobody is admitted before one of higher rank who would have fitted in its place."""
    ready = line_up(case)
    admitted, _, kept = ready.admit(slots, case.free)
    room = Counter(case.free)
    in_flight = Counter({run.key: run.in_flight for run in case.runs})
    for one in admitted:
        in_flight[one.run.key] -= 1
    left = {(run.key, n): run for run in case.runs for n in run.waiting}
    for one in admitted:
        for (_, index), run in left.items():
            plan = run.board.plan
            lane = lane_of(run, index)
            rival = (lane, -plan.weights[index], run.logical_date, run.serial, index)
            if rival < one[:5] and in_flight[run.key] < run.max_active_tasks:
                fits = need_of(run, index) <= room[plan.tasks[index].pool]
                kept_from = plan.tasks[index].pool in kept and need_of(run, index) > 0
                assert not fits or kept_from, f"{one[:5]} before {rival}"
        del left[one.run.key, one.task]
        room[pool(one)] -= need(one)
        in_flight[one.run.key] += 1


@given(case=cases(), slots=st.lists(st.integers(0, 3), max_size=6), data=st.data())
def test_nobody_is_lost(case: Case, slots: list[int], data: st.DataObject) -> None:
    """However admissions, ends and pauses mix: with room for all, each one goes exactly once."""
    ready = line_up(case)
    went: Counter[tuple[int, int]] = Counter()

    def admit(number: int, free: dict[str, int]) -> int:
        admitted, *_ = ready.admit(number, free)
        for one in admitted:
            went[one.run.key, one.task] += 1
            del one.run.waiting[one.task]
        return len(admitted)

    for number in slots:
        run = data.draw(st.sampled_from(case.runs))
        run.paused = not run.paused
        ready.unpark(run)
        admit(number, case.free)
        ended = data.draw(st.sampled_from(case.runs))
        if ended.in_flight:
            ended.in_flight -= 1
            ready.unpark(ended)
    for run in case.runs:
        run.paused = False
        ready.unpark(run)
    plenty = dict.fromkeys(_POOLS, 10**8)
    for _ in range(50):
        admit(3, plenty)
        for run in case.runs:
            run.in_flight = 0
            ready.unpark(run)
    assert set(went.values()) == {1}
    assert sum(went.values()) == sum(len(run.board.plan) for run in case.runs)
    assert len(ready) == 0


@given(full=st.integers(1, 40), free=st.integers(1, 5), limit=st.integers(1, 6), same=st.booleans())
def test_a_full_pool_starves_no_other_h4(full: int, free: int, limit: int, same: bool) -> None:
    """However many of higher rank wait for pool ``a``, of the same run or of another."""
    crowd = [("a", 1, 9)] * full
    others = [("b", 1, 1)] * free
    if same:
        runs = [active(1, [*crowd, *others], limit, 0, {})]
    else:
        runs = [active(1, crowd, limit, 0, {}), active(2, others, limit, 1, {})]
    ready = line_up(Case(runs, {}))
    admitted, starving, _ = ready.admit(100, {"a": 0, "b": 10_000})
    assert [pool(one) for one in admitted] == ["b"] * min(free, limit)
    assert starving["a"] >= 1


@given(case=cases())
def test_a_run_that_was_dropped_has_no_candidates(case: Case) -> None:
    ready = line_up(case)
    case.runs[0].alive = False
    admitted, *_ = ready.admit(1000, dict.fromkeys(_POOLS, 100_000))
    assert all(one.run is not case.runs[0] for one in admitted)


def test_what_was_skipped_while_in_line_hides_nobody() -> None:
    """Both in line are skipped by a branch, and nothing else of the run is in flight."""
    run = active(1, [("a", 1, 9), ("a", 1, 9), ("a", 1, 1)], 2, 0, {})
    ready = line_up(Case([run], {}))
    del run.waiting[0], run.waiting[1]
    admitted, *_ = ready.admit(10, {"a": 1000})
    assert [one.task for one in admitted] == [2]


def test_tasks_too_big_for_their_pool_hide_nobody_h5() -> None:
    run = active(1, [("a", 3, 9), ("a", 3, 8), ("a", 1, 1)], 2, 0, {})
    ready = line_up(Case([run], {}))
    admitted, *_ = ready.admit(10, {"a": 200})
    assert [one.task for one in admitted] == [2]
    admitted, *_ = ready.admit(10, {"a": 300})
    assert [one.task for one in admitted] == [0]
