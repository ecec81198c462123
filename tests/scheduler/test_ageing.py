"""No pool, DAG or big task can starve another (H4, H5): whoever is passed too long goes next."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.scheduler.ageing import PASSES
from roost.scheduler.book import ActiveRun, Waiting
from roost.scheduler.ready import Candidate, Ready
from tests.scheduler.hands import World, dag, ok, task
from tests.scheduler.test_ready import active

_CROWD = 600


class Guest(NamedTuple):
    """One that must get through: when it comes, what it needs, what it weighs."""

    step: int
    slots: int
    weight: int


class Hall:
    """A pool and a stream of small tasks of high weight that never ends; everything that runs
    ends after a few steps."""

    def __init__(self, size: int, guests: list[Guest], lasts: int) -> None:
        self.size, self.lasts = size, lasts
        self.ready = Ready()
        self.ready.ages.after_us = 0
        self.crowd = active(1, [("a", 1, 9)] * _CROWD, 10**6, 0, {})
        made = [("a", guest.slots, guest.weight) for guest in guests]
        self.guests = active(2, made or [("a", 1, 1)], 10**6, 1, {})
        self.crowd.waiting, self.guests.waiting = {}, {}
        self.arrivals = 0
        self.came: dict[tuple[int, int], int] = {}
        self.bound: dict[tuple[int, int], int] = {}
        self.passes: dict[tuple[int, int], int] = {}
        self.inside: list[tuple[int, Candidate]] = []

    def come(self, run: ActiveRun, index: int) -> None:
        older = len(self.passes)
        run.waiting[index] = Waiting((), {})
        self.ready.add(run, index)
        place = (run.key, index)
        self.came[place] = self.arrivals = self.arrivals + 1
        self.passes[place] = 0
        self.bound[place] = 2 * (older + 1) * (PASSES + self.size)

    def step(self, now: int) -> None:
        self.ready.ages.now = now
        self.inside = [(end, one) for end, one in self.inside if end > now]
        used = sum(self.slots(one) for _, one in self.inside)
        free = {"a": 100 * (self.size - used)}
        for one in self.ready.admit(10**6, free, {"a": 100 * self.size}).candidates:
            self.go(one, now)
        assert sum(self.slots(one) for _, one in self.inside) <= self.size

    def slots(self, one: Candidate) -> int:
        return one.run.board.tasks[one.task].pool_slots

    def go(self, one: Candidate, now: int) -> None:
        place = (one.run.key, one.task)
        del one.run.waiting[one.task]
        del self.passes[place]  # and fails, if it goes twice
        for other in self.passes:
            if self.came[other] < self.came[place]:
                self.passes[other] += 1
                assert self.passes[other] <= self.bound[other]
        # Not all at once: slots come free one by one, and others are there to take them.
        self.inside.append((now + 1 + self.came[place] % self.lasts, one))


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 4),
    guests=st.lists(
        st.builds(Guest, st.integers(0, 20), st.integers(1, 4), st.integers(-3, 3)), max_size=4
    ),
    lasts=st.integers(1, 4),
)
def test_everybody_goes_within_the_bound_h4_h5(size: int, guests: list[Guest], lasts: int) -> None:
    """Whatever comes after it, whatever it needs, as long as the pool is large enough at all."""
    guests = [guest._replace(slots=min(guest.slots, size)) for guest in guests]
    hall = Hall(size, guests, lasts)
    crowd = iter(range(_CROWD))
    for now in range(_CROWD // (size + 1)):
        for number, guest in enumerate(guests):
            if guest.step == now:
                hall.come(hall.guests, number)
        for _ in range(size + 1):
            if len(hall.crowd.waiting) < 2 * size:
                hall.come(hall.crowd, next(crowd))
        hall.step(now)
    assert not hall.guests.waiting


def test_without_ageing_the_big_one_starves_h5() -> None:
    """So the property above holds because of it, and nothing else."""
    hall = Hall(2, [Guest(0, 2, 1)], 2)
    hall.ready.ages.after_us = 10**9
    hall.come(hall.guests, 0)
    crowd = iter(range(_CROWD))
    for now in range(100):
        hall.come(hall.crowd, next(crowd))
        hall.bound[2, 0] = 10**6
        hall.step(now)
    assert hall.guests.waiting
    hall.ready.ages.after_us = 0
    for now in range(100, 100 + 2 * PASSES):
        hall.come(hall.crowd, next(crowd))
        hall.step(now)
    assert not hall.guests.waiting


def test_a_busy_pool_does_not_starve_another_of_executor_slots_h4() -> None:
    """Pool b has room, but the executor never has a slot left when it comes to b."""
    ready = Ready()
    ready.ages.after_us = 0
    crowd = active(1, [("a", 1, 9)] * 200, 10**6, 0, {})
    guest = active(2, [("b", 1, 1)], 10**6, 1, {})
    for run in (crowd, guest):
        for index in run.waiting:
            ready.add(run, index)
    gone = []
    for now in range(PASSES + 2):
        ready.ages.now = now
        for one in ready.admit(1, {"a": 900, "b": 900}, {"a": 900, "b": 900}).candidates:
            del one.run.waiting[one.task]
            gone.append(one.pool)
    assert gone.count("b") == 1


def test_one_that_can_never_fit_keeps_nobody_out_h5() -> None:
    ready = Ready()
    ready.ages.after_us = 0
    run = active(1, [("a", 5, 9)] + [("a", 1, 1)] * 100, 10**6, 0, {})
    for index in run.waiting:
        ready.add(run, index)
    for now in range(50):
        ready.ages.now = now
        (one,) = ready.admit(1, {"a": 200}, {"a": 200}).candidates
        del run.waiting[one.task]
    assert next(iter(run.waiting)) == 0


def test_a_big_task_gets_its_slots_in_time_h5(world: World) -> None:
    """With priority alone it would wait until the small ones are done."""
    world.pool("p", 2)
    small = [task(f"s{n}", pool="p", priority_weight=9) for n in range(60)]
    world.start(task("big", pool="p", pool_slots=2), *small, max_active_tasks=100)
    order = []
    for _ in range(40):
        world.clock.advance(10)
        held = sorted(world.held)
        world.end_all({id_: ok() for id_ in held[:1]})  # one at a time: never two free at once
        world.turns()
        order += [one.task_id for one in world.claim()]
        if "big" in order:
            break
    assert order[-1] == "big"
    assert 60 / 10 <= len(order) <= 60 / 10 + 2 * PASSES
    world.check()


def test_the_setting_is_read(world: World) -> None:
    """A DAG of low weight gets its turn although another always has more to do (H4)."""
    world.schedulers[0]._ageing_us = 0
    world.pool("p", 1)
    world.store(
        dag("busy", *[task(f"t{n}", pool="p", priority_weight=9) for n in range(40)]),
        dag("meek", task("x", pool="p")),
    )
    world.trigger("busy")
    world.trigger("meek")
    world.turns()
    order = [name for _ in range(PASSES + 2) for name in world.work()]
    assert "x" in order
