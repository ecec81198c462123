"""Random DAGs, outcomes, crashes and pauses: no promise is ever broken, and every run ends."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from roost.dag.model import Length, SerializedDag, SerializedExpand, SerializedStart, TriggerRule
from roost.exceptions import RoostException
from roost.models import state_edits
from roost.models.backfill import Reprocess
from roost.models.state_edits import Mark
from roost.scheduler import ageing
from roost.scheduler.loop import LeaseLost
from roost.support.clock import SECOND
from tests.scheduler.hands import World, dag, deferred, failed, ok, skipped, task
from tests.scheduler.test_restart import Crash, breaking
from tests.scheduler.triggerers import Triggerers
from tests.support.reused import empty

_RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
_HOUR = 3600 * SECOND
_POOLS = ("default_pool", "small", "holding", "missing")
_FEW = st.sampled_from([None, None, None, 1, 2])
# Now and then a task starts in its trigger, and comes back or ends there (D12).
_COMES_BACK = SerializedStart("hands.T", "hands:T", next_method="done", timeout_us=7 * SECOND)
_ENDS_THERE = SerializedStart("hands.T", "hands:T")
_STARTS = st.sampled_from([None] * 5 + [_COMES_BACK, _ENDS_THERE])
_REPORTS = st.sampled_from(
    ["fired", "fired", "failed", "end_success", "end_failed", "end_skipped", "row"]
)
_KINDS = st.sampled_from(
    ["ok", "ok", "ok", "fail", "final", "skip", "branch", "defer", "defer", "timed", "timer"]
)


def _expands(number: int) -> st.SearchStrategy[SerializedExpand]:
    """One or two lengths: literals, or what the tasks before this one leave."""
    lengths = st.builds(Length, st.just("literal"), count=st.sampled_from([0, 1, 2, 2, 3]))
    if number:
        names = st.sampled_from([f"t{n}" for n in range(number)])
        lengths |= st.builds(Length, st.just("xcom"), task_id=names)
    return st.builds(SerializedExpand, st.lists(lengths, min_size=1, max_size=2))


@st.composite
def dags(draw: st.DrawFn, dag_id: str) -> SerializedDag:
    """A DAG of one to eight tasks, some of them mapped (H17), setups or teardowns (H18)."""
    count = draw(st.integers(1, 8))
    tasks = []
    first = count  # of the mapped group
    for number in range(count):
        below = [n for n in range(number + 1, count) if draw(st.integers(0, 2)) == 0]
        common = draw(st.booleans())
        kind = draw(st.sampled_from(["plain", "plain", "plain", "mapped", "group"]))
        first = min(first, number) if kind == "group" else first
        role = draw(st.sampled_from(["work", "work", "work", "setup", "teardown"]))
        tasks.append(
            task(
                f"t{number}",
                " ".join(f"t{n}" for n in below),
                trigger_rule=(
                    "all_done_setup_success"
                    if role == "teardown"
                    else "all_success"
                    if common
                    else draw(st.sampled_from(_RULES))
                ),
                setup=role == "setup",
                teardown=role == "teardown",
                expand=draw(_expands(number)) if kind == "mapped" else None,
                mapped_group="g" if kind == "group" else None,
                retries=draw(st.integers(0, 2)),
                retry_delay_us=draw(st.sampled_from([0, 5 * SECOND])),
                pool=draw(st.sampled_from(_POOLS[:3])),
                pool_slots=draw(st.integers(1, 2)),
                priority_weight=draw(st.integers(-2, 5)),
                empty=draw(st.integers(0, 5)) == 0,
                start=draw(_STARTS),
                max_active_tis_per_dag=draw(_FEW),
                max_active_tis_per_dagrun=draw(_FEW),
            )
        )
    return dag(
        dag_id,
        *tasks,
        mapped_groups={"g": draw(_expands(first))},
        max_active_tasks=draw(st.integers(1, 4)),
        max_active_runs=draw(st.integers(1, 2)),
        dagrun_timeout_us=draw(st.sampled_from([None, None, 20 * SECOND])),
        fail_fast=draw(st.booleans()),
        schedule=draw(st.sampled_from([None, "@hourly"])),
        start_date=None,
    )


class Machine(RuleBasedStateMachine):
    """One world; hypothesis says what happens next."""

    url: str
    schedulers: int

    def __init__(self) -> None:
        super().__init__()
        empty(self.url)
        self.world = World(self.url, schedulers=self.schedulers, parallelism=4, max_losses=2)
        for scheduler in self.world.schedulers:
            scheduler._ageing_us = 0
        self.triggerers = Triggerers(self.world)

    @initialize(first=dags("one"), second=dags("two"))
    def begin(self, first: SerializedDag, second: SerializedDag) -> None:
        self.world.pool("small", 2)
        self.world.pool("holding", 3, deferred_percent=60)
        self.world.store(first, second)

    def _scheduler(self, number: int) -> int:
        return number % self.schedulers

    @rule(which=st.sampled_from(["one", "two"]))
    def trigger(self, which: str) -> None:
        if len(self.world.fetch("SELECT id FROM dag_run WHERE end_date IS NULL")) < 6:
            self.world.trigger(which)

    @rule(number=st.integers(0, 1))
    def turn(self, number: int) -> None:
        self.world.turn(self._scheduler(number))

    @rule(number=st.integers(0, 1))
    def turns(self, number: int) -> None:
        self.world.turns(self._scheduler(number))

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        self.world.claim(limit)

    @precondition(lambda self: self.world.held)
    @rule(
        pick=st.integers(0, 7),
        kind=_KINDS,
        skip=st.sets(st.integers(0, 7)),
        length=st.sampled_from([None, 0, 1, 2, 2, 3, 50]),
    )
    def end(self, pick: int, kind: str, skip: set[int], length: int | None) -> None:
        held = sorted(self.world.held)
        one = self.world.held[held[pick % len(held)]]
        outcome = {
            "ok": ok(),
            "fail": failed(),
            "final": failed(retryable=False),
            "skip": skipped(),
            "branch": ok(skip=self._below(one.dag_id, one.task_id, skip)),
            "defer": deferred(),
            "timed": deferred(timeout_s=7),
            "timer": deferred(lane="timer", due_at=self.world.clock.now + 4 * SECOND),
        }[kind]
        if kind != "skip":
            self.world.leave(one, length)
        self.world.end(one, outcome)

    def _below(self, dag_id: str, task_id: str, pick: set[int]) -> list[str]:
        (row,) = self.world.fetch(
            "SELECT v.data FROM dag d JOIN dag_version v ON v.id = d.version_id "
            "WHERE d.dag_id = :d",
            d=dag_id,
        )
        known = {t.task_id: t for t in _decode(row.data).tasks}
        return [t for t in known[task_id].downstream if int(t[1:]) in pick]

    @rule(pick=st.integers(0, 7), fails=st.booleans())
    def fire(self, pick: int, fails: bool) -> None:
        waiting = self.world.pending_triggers()
        if waiting:
            kind: Any = "failed" if fails else "fired"
            trigger_id = waiting[pick % len(waiting)]
            self.world.fire_id(trigger_id, pick, kind=kind, error="broken")
            self.triggerers.note(trigger_id)

    @rule(which=st.integers(0, 1), batch=st.integers(1, 4))
    def a_triggerer_claims(self, which: int, batch: int) -> None:
        self.triggerers.claim(which, batch)

    @rule(pick=st.integers(0, 20), kind=_REPORTS)
    def a_triggerer_reports(self, pick: int, kind: str) -> None:
        self.triggerers.report(pick, kind)

    @rule(which=st.integers(0, 1), count=st.integers(1, 2))
    def a_triggerer_gives_back(self, which: int, count: int) -> None:
        self.triggerers.give_back(which, count)

    @rule(which=st.integers(0, 1), back=st.booleans())
    def triggers_move(self, which: int, back: bool) -> None:
        self.triggerers.move(which, back=back)

    @rule(which=st.integers(0, 1))
    def a_triggerer_is_declared_dead(self, which: int) -> None:
        self.triggerers.die(which)

    @rule(which=st.integers(0, 1), finish=st.booleans())
    def a_triggerer_kills(self, which: int, finish: bool) -> None:
        self.triggerers.kill(which, finish=finish)

    @rule()
    def timers_fire(self) -> None:
        self.triggerers.fire_timers()

    @rule(seconds=st.sampled_from([1, 5, 8, 1800]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(number=st.integers(0, 1))
    def forget(self, number: int) -> None:
        self.world.schedulers[self._scheduler(number)].forget()

    @rule()
    def the_worker_dies(self) -> None:
        self.world.lose_worker()

    @rule(number=st.integers(0, 1))
    def a_scheduler_is_declared_dead(self, number: int) -> None:
        index = self._scheduler(number)
        self.world.lose_scheduler(index)
        with pytest.raises(LeaseLost):
            self.world.turn(index)
        self.world.schedulers[index].join(self.world.register("scheduler"))

    @rule(pick=st.sets(st.integers(0, 12), max_size=4), keep=st.booleans())
    def a_user_clears(self, pick: set[int], keep: bool) -> None:
        ids = self._picked(pick)
        self.world.transact(lambda tx: state_edits.clear(tx, ids, actor="cli", keep_version=keep))

    @rule(
        pick=st.sets(st.integers(0, 12), max_size=3),
        state=st.sampled_from(["success", "failed", "skipped"]),
    )
    def a_user_marks(self, pick: set[int], state: Mark) -> None:
        ids = self._picked(pick)
        self.world.transact(lambda tx: state_edits.mark(tx, ids, state, actor="cli"))

    @rule(pick=st.integers(0, 5), fails=st.booleans())
    def a_user_marks_a_run(self, pick: int, fails: bool) -> None:
        keys = [row.id for row in self.world.fetch("SELECT id FROM dag_run ORDER BY id")]
        if keys:
            self.world.mark_run(keys[pick % len(keys)], "failed" if fails else "success")

    @rule(
        which=st.sampled_from(["one", "two"]),
        hours=st.integers(2, 30),
        count=st.integers(1, 4),
        limit=st.integers(1, 2),
        backwards=st.booleans(),
        reprocess=st.sampled_from(["none", "failed", "completed"]),
    )
    def a_user_backfills(
        self,
        which: str,
        hours: int,
        count: int,
        limit: int,
        backwards: bool,
        reprocess: Reprocess,
    ) -> None:
        if len(self.world.fetch("SELECT id FROM dag_run WHERE end_date IS NULL")) >= 6:
            return
        now = self.world.clock.now
        last = now - now % _HOUR - hours * _HOUR
        with suppress(RoostException):  # it has no schedule
            self.world.backfill(
                which,
                last - (count - 1) * _HOUR,
                last,
                reprocess=reprocess,
                backwards=backwards,
                max_active_runs=limit,
            )

    def _picked(self, pick: set[int]) -> list[int]:
        known = self.world.ids()
        return [known[-1 - n] for n in pick if n < len(known)]

    @rule()
    def the_worker_obeys(self) -> None:
        self.world.obey()

    @rule(number=st.integers(0, 1), at=st.integers(0, 25))
    def a_turn_crashes(self, number: int, at: int) -> None:
        with breaking(at, Crash), suppress(Crash):
            self.world.turn(self._scheduler(number))

    @rule(which=st.sampled_from(["one", "two"]), paused=st.booleans())
    def pause(self, which: str, paused: bool) -> None:
        self.world.pause(which, paused)

    @rule(slots=st.integers(0, 4), pool=st.sampled_from(["small", "holding"]))
    def resize(self, slots: int, pool: str) -> None:
        self.world.pool(pool, slots)

    @rule(percent=st.sampled_from([0, 40, 100]))
    def count_deferral(self, percent: int) -> None:
        if self.schedulers == 1:  # others notice with their next turn only
            self.world.pool("small", 2, deferred_percent=percent)

    @invariant()
    def no_promise_is_broken(self) -> None:
        self.world.check()
        assert self.triggerers.broken() == []

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self.world.close()

    def _finish(self) -> None:
        """Everything may run now, and goes well: then every run must end (L5)."""
        world = self.world
        for which in ("one", "two"):
            world.pause(which, False)
        world.execute("UPDATE dag SET next_run_after = NULL")
        for pool in ("small", "holding"):
            world.pool(pool, 8)
        for _ in range(60):
            for number in range(self.schedulers):
                world.turns(number)
            world.claim()
            world.obey()
            world.end_all(dict.fromkeys(list(world.held), ok()))
            world.fire_all()
            world.clock.advance(5)
            if not world.fetch("SELECT id FROM dag_run WHERE end_date IS NULL"):
                world.check()
                return
        raise AssertionError(f"runs do not end: {world.states()}")


def _decode(data: str) -> SerializedDag:
    return msgspec.json.decode(data, type=SerializedDag)


@pytest.mark.timeout(180)
def test_any_history_keeps_every_promise(
    database_url: str, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ageing, "PASSES", 1)  # every other goes for its age
    many = database_kind == "sqlite"

    class Here(Machine):
        url = database_url
        schedulers = 1 if many else 2

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=40 if many else 10,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
