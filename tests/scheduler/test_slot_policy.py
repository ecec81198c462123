"""Slots and deferral: no limit exceeded at any instant, resumed tasks before new ones (H5)."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

import pytest

from roost.models.slots import share
from roost.scheduler.book import ActiveRun, Waiting
from roost.scheduler.ready import Ready, lane_of, need_of
from tests.scheduler.test_ready import active

_SCHEDULES = 10_000
_PARTS = 8
_PERCENTS = (0, 0, 25, 40, 75, 100)


class Place(NamedTuple):
    """A task instance."""

    run: ActiveRun
    task: int

    @property
    def pool(self) -> str:
        return str(self.run.board.tasks[self.task].pool)

    @property
    def slots(self) -> int:
        return int(self.run.board.tasks[self.task].pool_slots)


class World:
    """A scheduler's line and, counted beside it from nothing but states, what is in use."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.sizes = {pool: chance.randint(1, 6) for pool in "ab"}
        self.percents = {pool: chance.choice(_PERCENTS) for pool in "ab"}
        self.parallelism = chance.randint(1, 8)
        self.ready = Ready()
        self.ready.ages.after_us = 10**15  # ageing lets others go first, on purpose
        self.runs = [self._run(key) for key in range(1, chance.randint(2, 4))]
        self.running: set[Place] = set()
        self.deferred: set[Place] = set()
        self.done = 0
        for run in self.runs:
            for index in run.waiting:
                self.ready.add(run, index)

    def _run(self, key: int) -> ActiveRun:
        chance = self.chance
        tasks = [
            (chance.choice("ab"), chance.randint(1, 3), chance.randint(-2, 2))
            for _ in range(chance.randint(2, 7))
        ]
        return active(key, tasks, chance.randint(1, 5), key, {})

    def used(self, pool: str) -> int:
        """Hundredths of a pool that are in use, by the states alone."""
        waiting = (Place(run, index) for run in self.runs for index in run.waiting)
        parts = [*self.deferred, *(one for one in waiting if one.task in one.run.resumed)]
        return sum(share(one.slots) for one in self.running if one.pool == pool) + sum(
            share(one.slots, self.percents[pool]) for one in parts if one.pool == pool
        )

    def admit(self) -> None:
        before = {pool: self.used(pool) for pool in self.sizes}
        sizes = {pool: share(size) for pool, size in self.sizes.items()}
        free = {pool: max(0, sizes[pool] - before[pool]) for pool in sizes}
        went = self.ready.admit(self.parallelism - len(self.running), free, sizes).candidates
        for one in went:
            del one.run.waiting[one.task]
            one.run.holding.pop(one.task, None)
            self.running.add(Place(one.run, one.task))
        for pool in sizes:
            assert self.used(pool) <= max(sizes[pool], before[pool]), f"pool {pool}"
        assert len(self.running) <= self.parallelism
        active_of = Counter(one.run.key for one in self.running)
        for run in self.runs:
            assert active_of[run.key] == run.in_flight <= run.max_active_tasks
        self._check_lane({one.pool for one in went if one.lane == 1})

    def _check_lane(self, begun: set[str]) -> None:
        """Nobody began in a pool in which somebody waits to go on who could."""
        for run in self.runs:
            for index in run.waiting:
                one = Place(run, index)
                if lane_of(run, index) == 0 and one.pool in begun:
                    fits_at_all = one.slots <= self.sizes[one.pool]
                    assert run.in_flight >= run.max_active_tasks or not fits_at_all

    def end(self, one: Place) -> None:
        self.running.remove(one)
        one.run.in_flight -= 1
        one.run.resumed.discard(one.task)
        self.done += 1
        self.ready.unpark(one.run)

    def defer(self, one: Place) -> None:
        self.running.remove(one)
        one.run.in_flight -= 1
        self.deferred.add(one)
        if self.percents[one.pool]:
            one.run.holding[one.task] = self.percents[one.pool]
        self.ready.unpark(one.run)

    def resume(self, one: Place) -> None:
        self.deferred.remove(one)
        one.run.resumed.add(one.task)
        one.run.waiting[one.task] = Waiting((), {})
        self.ready.add(one.run, one.task)

    def step(self) -> None:
        chance = self.chance
        match chance.randint(0, 6):
            case 0 | 1 if self.running:
                self.end(self._pick(self.running))
            case 2 | 3 if self.running:
                self.defer(self._pick(self.running))
            case 4 if self.deferred:
                self.resume(self._pick(self.deferred))
            case 5:
                self.sizes[chance.choice("ab")] = chance.randint(0, 6)
        if chance.random() < 0.7:
            self.admit()

    def _pick(self, places: set[Place]) -> Place:
        return self.chance.choice(sorted(places, key=lambda one: (one.run.key, one.task)))

    def drain(self) -> None:
        """With pools large enough everybody comes to an end: nobody is lost or starved."""
        self.sizes = dict.fromkeys("ab", 9)
        for _ in range(200):
            while self.deferred:
                self.resume(self._pick(self.deferred))
            self.admit()
            while self.running:
                self.end(self._pick(self.running))
        assert self.done == sum(len(run.board.plan) for run in self.runs)
        assert {pool: self.used(pool) for pool in "ab"} == {"a": 0, "b": 0}


@pytest.mark.parametrize("part", range(_PARTS))
def test_limits_hold_at_every_instant_and_resumes_go_first_h5(part: int) -> None:
    """10,000 random schedules of admissions, ends, deferrals, events and pools that change."""
    for seed in range(part, _SCHEDULES, _PARTS):
        world = World(Random(seed))  # noqa: S311 - a schedule, not a secret
        try:
            for _ in range(25):
                world.step()
            world.drain()
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error


def test_a_large_resume_is_not_starved_by_small_new_ones_h5() -> None:
    """What comes free is kept for it, however much they weigh."""
    run = active(1, [("a", 3, -9)] + [("a", 1, 9)] * 20, 99, 0, {0: 0})
    ready = Ready()
    for index in run.waiting:
        ready.add(run, index)
    for free in (100, 200):
        admitted, _, kept = ready.admit(9, {"a": free}, {"a": 300})
        assert (admitted, kept) == ([], {"a"})
    (one,) = ready.admit(9, {"a": 300}, {"a": 300}).candidates
    assert one.task == 0


def test_a_resume_that_can_never_fit_keeps_nothing_h5() -> None:
    """The pool was made smaller than it needs while it waited."""
    run = active(1, [("a", 3, 9), ("a", 1, 1)], 99, 0, {0: 0})
    ready = Ready()
    for index in run.waiting:
        ready.add(run, index)
    admitted, *_ = ready.admit(9, {"a": 200}, {"a": 200})
    assert [one.task for one in admitted] == [1]


@pytest.mark.parametrize(("percent", "need"), [(0, 200), (25, 150), (100, 0)])
def test_what_is_held_while_deferred_need_not_be_found_again_h5(percent: int, need: int) -> None:
    run = active(1, [("a", 2, 1)], 1, 0, {0: percent})
    assert need_of(run, 0) == need
    ready = Ready()
    ready.add(run, 0)
    if need:
        assert ready.admit(1, {"a": need - 1}, {"a": 200}).candidates == []
    assert len(ready.admit(1, {"a": need}, {"a": 200}).candidates) == 1
