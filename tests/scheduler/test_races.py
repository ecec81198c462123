"""Two actors at once, statement by statement: a deferral comes to exactly one outcome (S3, D17).

On PostgreSQL every order of their statements is tried as far as they are few
(:func:`tests.support.interleaving.schedules`), on SQLite, which has one writer, both orders. The
promises (invariants S1-S6) are checked along the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from roost.models import state_edits
from roost.models.engine import Tx
from roost.models.queries import external, jobs, kills, timers, trigger_events, triggers
from roost.models.queries.external import NewEvent
from roost.support.trigger_wire import TriggerReport
from roost.support.wire import DeferSpec
from tests.scheduler.hands import DAY, World, deferred, task
from tests.support.interleaving import Pair, schedules

_MOST = int(os.environ.get("ROOST_TEST_ORDERS", "60"))
_KILLS = "SELECT id FROM trigger_kill WHERE task_id = :t"
_RAW = msgspec.Raw(b"{}")
Step = Callable[[], Any]
Edit = Callable[[Tx, int], object]

pytestmark = pytest.mark.timeout(180)


class Case(NamedTuple):
    """One deferral that is raced for."""

    task_id: str
    ti_id: int
    trigger_id: int
    epoch: int


class Races:
    """A run of many tasks that wait to be raced for, one after the other."""

    def __init__(self, url: str, kind: str, each: int = 1, **knobs: Any) -> None:
        self.world = World(url, parallelism=10_000)
        self.world.pool("default_pool", 10_000)
        self.serial = kind == "sqlite"
        self.pair = Pair(self.world.engine)
        tasks = [task(f"t{number}", **knobs) for number in range(each * (_MOST + 5))]
        self.world.start(*tasks, max_active_tasks=1000)
        self.waiting = sorted(self.world.claim(), key=lambda one: one.id)
        self.worker = self.world.worker

    def close(self) -> None:
        """Every promise holds at the end, too."""
        try:
            self.world.check()
        finally:
            self.pair.close()
            self.world.close()

    def triggerer(self) -> int:
        """A new triggerer's job."""
        return self.world.register("triggerer")

    def defer(self, owner: int | None, **spec: Any) -> Case:
        """The next task defers, and the trigger is claimed by ``owner``."""
        one = self.waiting.pop(0)
        self.world.end(one, deferred(**spec))
        self.world.turns()
        (row,) = self.world.fetch("SELECT id FROM trigger WHERE ti_id = :t", t=one.ti_id)
        epoch = 0
        if owner is not None:
            epoch = self.do(lambda tx: triggers.claim(tx, owner, 1000))[row.id]
        return Case(one.task_id, one.ti_id, row.id, epoch)

    def do(self, step: Callable[[Tx], Any]) -> Any:
        """One transaction."""
        return self.world.transact(step)

    def store(self, case: Case, job_id: int, epoch: int | None = None, **fields: Any) -> Step:
        """A triggerer stores the event of a trigger; gives whether it did."""
        fields = {"kind": "fired", **fields}
        report = TriggerReport(case.trigger_id, case.epoch if epoch is None else epoch, **fields)
        return lambda: bool(self.do(lambda tx: trigger_events.store(tx, job_id, [report], 1)))

    def take_over(self, old: int, new: int) -> Step:
        """A triggerer finds another one gone, and claims what it had; gives the claims."""

        def step(tx: Tx) -> Any:
            jobs.end(tx, old)
            for owner in triggers.owners_without_job(tx):
                triggers.release(tx, owner)
            return triggers.claim(tx, new, 1000)

        return lambda: self.do(step)

    def all_orders(
        self, make: Callable[[], tuple[Step, Step, Callable[[str, Any, Any], None]]]
    ) -> None:
        """Race in every order; ``make`` gives both actors and who judges what came of them."""
        a, b, judge = make()
        first, _ = self.pair.count(a), self.pair.count(b)
        judge("a, then b", None, None)
        a, b, judge = make()
        second, _ = self.pair.count(b), self.pair.count(a)
        judge("b, then a", None, None)
        tried = set()
        for order in schedules(first, second, _MOST, serial=self.serial):
            a, b, judge = make()
            made, one, other = self.pair.run(order, a, b)
            tried.add(made)
            judge(made, one, other)
            if len(tried) % 10 == 0:
                self.world.check()
        assert len(tried) >= 2

    def log(self, case: Case) -> list[str]:
        """What happened to the task since it deferred."""
        moves = self.world.log(case.task_id)
        return moves[moves.index("defer") + 1 :]

    def events(self, case: Case) -> int:
        """Events that are stored for the trigger."""
        sql = "SELECT count(*) AS n FROM trigger_event WHERE trigger_id = :t"
        return int(self.world.fetch(sql, t=case.trigger_id)[0].n)

    def kills(self, case: Case) -> int:
        """Whether the trigger is to be killed."""
        sql = "SELECT count(*) AS n FROM trigger_kill WHERE id = :t"
        return int(self.world.fetch(sql, t=case.trigger_id)[0].n)


@pytest.fixture
def races(database_url: str, database_kind: str) -> Iterator[Races]:
    made = Races(database_url, database_kind)
    yield made
    made.close()


EDITS: dict[str, Edit] = {
    "clear": lambda tx, ti_id: state_edits.clear(tx, [ti_id], actor="cli"),
    "mark": lambda tx, ti_id: state_edits.mark(tx, [ti_id], "failed", actor="cli"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["fired", "end_success", "failed"])
def test_an_event_and_a_users_edit(races: Races, edit: str, kind: Any) -> None:
    """D10, D17: the edit wins; the trigger is killed if and only if it had no event."""
    owner = races.triggerer()

    def make() -> Any:
        case = races.defer(owner)

        def judge(order: str, stored: Any, _: Any) -> None:
            if stored is not None:
                assert stored + races.kills(case) == 1, order
            races.world.turns()
            expected = {"clear": ["clear", "schedule", "enqueue"], "mark": ["mark_failed"]}[edit]
            assert races.log(case) == expected, order
            assert races.events(case) == 0

        store = races.store(case, owner, kind=kind)
        return store, lambda: races.do(lambda tx: EDITS[edit](tx, case.ti_id)), judge

    races.all_orders(make)


def test_an_event_and_the_time_out(races: Races) -> None:
    """D6, S3: one of the two; and an event that has been stored is not lost."""
    owner = races.triggerer()

    def make() -> Any:
        case = races.defer(owner, timeout_s=5)
        races.world.clock.advance(6)

        def judge(order: str, stored: Any, _: Any) -> None:
            races.world.turns()
            moves = races.log(case)
            assert moves in (["resume", "enqueue"], ["fail"]), order
            if stored is not None:
                assert stored == ("resume" in moves), (order, moves)

        return races.store(case, owner), lambda: races.world.turn(), judge

    races.all_orders(make)


@pytest.mark.parametrize("rival", ["events", "edits"])
def test_a_batch_of_time_outs_and_what_comes_in_between(
    database_url: str, database_kind: str, rival: str
) -> None:
    """D6, S3: those that others reach first are left out of the batch, the others are not."""
    races = Races(database_url, database_kind, each=4, retries=1, retry_delay_us=DAY)
    owner = races.triggerer()
    wishes = ("fail", "retry", "skip", "fail")
    ends = ("fail", "retry", "end_skipped", "fail")

    def make() -> Any:
        cases = [races.defer(owner, timeout_s=5, on_timeout=wish) for wish in wishes]
        races.world.clock.advance(6)
        raced = cases[:3]  # the last one is nobody's but the batch's

        def edit(tx: Tx) -> None:
            state_edits.clear(tx, [case.ti_id for case in raced[:2]], actor="cli")
            state_edits.mark(tx, [raced[2].ti_id], "success", actor="cli")

        def fire(tx: Tx) -> list[int]:
            reports = [TriggerReport(c.trigger_id, c.epoch, kind="fired") for c in raced]
            return trigger_events.store(tx, owner, reports, 1)

        def judge(order: str, _: Any, stored: Any) -> None:
            races.world.turns()
            for case, ended in zip(cases, ends, strict=True):
                moves = races.log(case)
                if case is cases[-1]:
                    assert moves == [ended], order
                elif rival == "events":
                    assert moves in (["resume", "enqueue"], [ended]), order
                    if stored is not None:
                        assert (case.trigger_id in stored) == ("resume" in moves), (order, moves)
                else:
                    timed_out = moves[:1] == [ended]
                    marked = case is raced[2]
                    after = ["mark_success"] if marked else ["clear", "schedule", "enqueue"]
                    assert moves[timed_out:] == after, (order, moves)
                    assert races.kills(case) == (not timed_out), (order, moves)
            left = races.world.fetch("SELECT count(*) AS n FROM trigger WHERE fired_at IS NULL")
            assert left[0].n == 0, order

        rivals: Step = lambda: races.do(fire if rival == "events" else edit)  # noqa: E731
        return lambda: races.world.turn(), rivals, judge

    try:
        races.all_orders(make)
    finally:
        races.close()


def test_an_event_and_the_turn_that_reads_it(races: Races) -> None:
    """The turn takes it or leaves it for the next one."""
    owner = races.triggerer()

    def make() -> Any:
        case = races.defer(owner)

        def judge(order: str, _: Any, __: Any) -> None:
            races.world.turns()
            assert races.log(case) == ["resume", "enqueue"], order

        return races.store(case, owner), lambda: races.world.turn(), judge

    races.all_orders(make)


@pytest.mark.parametrize("edit", EDITS)
def test_the_turn_that_settles_an_event_and_a_users_edit(races: Races, edit: str) -> None:
    """Resumed first and then edited, or edited only; never resumed after it."""
    owner = races.triggerer()

    def make() -> Any:
        case = races.defer(owner)
        assert races.store(case, owner)()

        def judge(order: str, _: Any, __: Any) -> None:
            races.world.turns()
            moves = races.log(case)
            done = {"clear": "clear", "mark": "mark_failed"}[edit]
            assert moves.count(done) == 1, (order, moves)
            assert "resume" not in moves[moves.index(done) :], (order, moves)
            assert races.kills(case) == 0

        edited: Step = lambda: races.do(lambda tx: EDITS[edit](tx, case.ti_id))  # noqa: E731
        return lambda: races.world.turn(), edited, judge

    races.all_orders(make)


def test_the_event_of_a_triggerer_that_is_declared_dead(races: Races) -> None:
    """D17, invariant S3: stored by the old owner, or claimed by the new one; never both."""
    new = races.triggerer()

    def make() -> Any:
        old = races.triggerer()
        case = races.defer(old)

        def judge(order: str, stored: Any, claims: Any) -> None:
            if stored is not None:
                assert stored != (case.trigger_id in claims), order
                if not stored:
                    assert claims[case.trigger_id] == case.epoch + 1
            races.store(case, new, case.epoch + 1)()
            races.store(case, old)()
            races.world.turns()
            assert races.log(case) == ["resume", "enqueue"], order

        return races.store(case, old), races.take_over(old, new), judge

    races.all_orders(make)


def test_the_events_of_two_triggerers_that_live(races: Races) -> None:
    """The claim in force is heard: the trigger has moved, its old owner does not know it yet."""
    old, new = races.triggerer(), races.triggerer()

    def make() -> Any:
        case = races.defer(old)
        races.do(lambda tx: triggers.give_back(tx, old, 1, ["default"]))
        epoch = races.do(lambda tx: triggers.claim(tx, new, 1000))[case.trigger_id]

        def judge(order: str, stale: Any, heard: Any) -> None:
            if heard is not None:
                assert (stale, heard) == (False, True), order
            races.world.turns()
            assert races.log(case) == ["resume", "enqueue"], order

        return races.store(case, old), races.store(case, new, epoch), judge

    races.all_orders(make)


def test_an_event_and_the_return_of_its_trigger(races: Races) -> None:
    """A triggerer gives back what another one is to claim, while its event is on the way."""
    old = races.triggerer()

    def make() -> Any:
        case = races.defer(old)

        def judge(order: str, stored: Any, given: Any) -> None:
            if stored is not None:
                assert stored + given == 1, order
            for epoch in races.do(lambda tx: triggers.claim(tx, old, 1000)).values():
                assert epoch == case.epoch + 1
                assert not races.store(case, old)()  # of the former claim, also of the same job
                assert races.store(case, old, epoch)()
            races.world.turns()
            assert races.log(case) == ["resume", "enqueue"], order

        give: Step = lambda: races.do(  # noqa: E731
            lambda tx: triggers.give_back(tx, old, 1, ["default"])
        )
        return races.store(case, old), give, judge

    races.all_orders(make)


@pytest.mark.parametrize("rival", ["timers", "clear"])
def test_a_timer_that_is_due(races: Races, rival: str) -> None:
    """Two triggerers fire it once; a user's clear comes before or after."""

    def make() -> Any:
        case = races.defer(None, lane="timer", due_at=races.world.clock.now)
        fire: Step = lambda: races.do(  # noqa: E731
            lambda tx: timers.fire_timers(tx, races.world.clock.now, 10)
        )
        clear: Step = lambda: races.do(lambda tx: EDITS["clear"](tx, case.ti_id))  # noqa: E731

        def judge(order: str, one: Any, other: Any) -> None:
            if one is not None and rival == "timers":
                assert one + other == 1, order
            races.world.turns()
            expected = ["resume"] if rival == "timers" else ["clear", "schedule"]
            assert races.log(case) == [*expected, "enqueue"], order
            assert races.kills(case) == 0

        return fire, fire if rival == "timers" else clear, judge

    races.all_orders(make)


@pytest.mark.parametrize("rival", ["clear", "take over"])
def test_a_trigger_that_turns_out_to_be_a_row(races: Races, rival: str) -> None:
    """D12: it is one, or it is gone, or somebody else's; never half of it."""
    new = races.triggerer()
    spec = DeferSpec("timer", "T", "t:T", _RAW, "done", _RAW, due_at=5)

    def make() -> Any:
        owner = races.triggerer()
        case = races.defer(owner)

        def judge(order: str, turned: Any, _: Any) -> None:
            rows = races.world.fetch("SELECT * FROM trigger WHERE id = :i", i=case.trigger_id)
            if rival == "clear":
                assert rows == [], order
                if turned is not None:
                    assert turned + races.kills(case) == 1, order
            else:
                (row,) = rows
                if turned is not None:
                    expected = ("timer", None) if turned else ("poll", new)
                    assert (row.lane, row.job_id) == expected, order
                races.do(lambda tx: EDITS["clear"](tx, case.ti_id))
            races.world.turns()
            assert races.log(case) == ["clear", "schedule", "enqueue"], order

        clear: Step = lambda: races.do(lambda tx: EDITS["clear"](tx, case.ti_id))  # noqa: E731
        other = clear if rival == "clear" else races.take_over(owner, new)
        return races.store(case, owner, kind="row", row=spec), other, judge

    races.all_orders(make)


def test_a_kill_is_claimed_by_one(races: Races) -> None:
    """D10: of two triggerers that find it without an owner."""
    first, second = races.triggerer(), races.triggerer()

    def claim(job_id: int) -> Step:
        return lambda: races.do(
            lambda tx: [one.spec.trigger_id for one in kills.claim(tx, job_id, 10, ())]
        )

    def make() -> Any:
        case = races.defer(None)
        races.do(lambda tx: EDITS["mark"](tx, case.ti_id))

        def judge(order: str, one: Any, other: Any) -> None:
            if one is not None:
                assert sorted(one + other) == [case.trigger_id], order
            races.world.execute("DELETE FROM trigger_kill")
            races.world.turns()

        return claim(first), claim(second), judge

    races.all_orders(make)


def test_a_kill_that_is_done_and_the_end_of_its_triggerer(races: Races) -> None:
    """D10: a stale owner settles nothing, a claim is for what is there."""
    new = races.triggerer()

    def make() -> Any:
        old = races.triggerer()
        case = races.defer(None)
        races.do(lambda tx: EDITS["mark"](tx, case.ti_id))
        (kill,) = races.do(lambda tx: kills.claim(tx, old, 10, ()))
        done = {case.trigger_id: kill.spec.epoch}

        def take_over(tx: Tx) -> list[int]:
            jobs.end(tx, old)
            return [one.spec.epoch for one in kills.claim(tx, new, 10, ())]

        def judge(order: str, _: Any, epochs: Any) -> None:
            if epochs is not None:
                assert len(epochs) == races.kills(case), order
                assert epochs in ([], [kill.spec.epoch + 1]), order
            races.world.execute("DELETE FROM trigger_kill")
            races.world.turns()

        finish: Step = lambda: races.do(lambda tx: kills.finish(tx, old, done))  # noqa: E731
        return finish, lambda: races.do(take_over), judge

    races.all_orders(make)


@pytest.mark.parametrize("edit", EDITS)
def test_the_deferral_itself_and_a_users_edit(races: Races, edit: str) -> None:
    """D10: the worker says deferred while a user clears: nothing waits, what began is ended."""

    def make() -> Any:
        one = races.waiting.pop(0)
        defer: Step = lambda: races.world.end(one, deferred())  # noqa: E731
        edited: Step = lambda: races.do(lambda tx: EDITS[edit](tx, one.ti_id))  # noqa: E731

        def judge(order: str, _: Any, __: Any) -> None:
            races.world.turns()
            moves = races.world.log(one.task_id)[3:]
            expected = {"clear": ["clear", "schedule", "enqueue"], "mark": ["mark_failed"]}[edit]
            assert moves == expected, order
            found = races.world.fetch(
                "SELECT id FROM trigger_kill WHERE task_id = :t", t=one.task_id
            )
            assert len(found) == 1, order

        return defer, edited, judge

    races.all_orders(make)


@pytest.mark.parametrize("rival", ["turn", "match", "clear"])
def test_a_word_from_outside(races: Races, rival: str) -> None:
    """Sent while the task is about to wait, matched by two, or waited for no longer."""

    def match() -> int:
        return int(races.do(lambda tx: external.match(tx, lambda _, text: text).woken))

    def make() -> Any:
        one = races.waiting.pop(0)
        key = f"key/{one.task_id}"
        send: Step = lambda: races.do(  # noqa: E731
            lambda tx: external.send(tx, NewEvent(key, "1", "me", DAY))
        )
        races.world.end(one, deferred(lane="external", key=key))
        if rival != "turn":
            races.world.turns()
            send()
        others = {
            "turn": races.world.turn,
            "match": match,
            "clear": lambda: races.do(lambda tx: EDITS["clear"](tx, one.ti_id)),
        }

        def judge(order: str, _: Any, __: Any) -> None:
            races.world.turns()
            match()
            races.world.turns()
            moves = races.world.log(one.task_id)[4:]
            expected = ["clear", "schedule"] if rival == "clear" else ["resume"]
            assert moves == [*expected, "enqueue"], order
            races.world.execute("DELETE FROM external_event")

        return send if rival == "turn" else match, others[rival], judge

    races.all_orders(make)
