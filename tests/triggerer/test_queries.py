"""What a triggerer reads and writes, on both databases: timers, claims, events, plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy import Engine

from roost.models import tables
from roost.models.engine import Sql, Tx, open_engine, transact
from roost.models.queries import (
    awaited,
    jobs,
    kills,
    timers,
    trigger_events,
    trigger_specs,
    triggers,
    watchers,
)
from roost.support import typedjson
from roost.support.clock import SECOND, now_us, to_us
from roost.support.processes import me
from roost.support.trigger_wire import TriggerReport
from tests.support.waiting import wait_until
from tests.triggerer.world import HASH, World

T = TypeVar("T")
CODE = """
from roost.dag.trigger import BaseTrigger, TriggerEvent
class Waits(BaseTrigger):
    def serialize(self): return ("Waits", {})
    async def run(self): yield TriggerEvent()
"""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return World(database_url, tmp_path, CODE)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def run(engine: Engine) -> Callable[[Callable[[Tx], T]], T]:
    return lambda step: transact(engine, step)


Run = Callable[[Callable[[Tx], Any]], Any]


def join(run: Run) -> int:
    return int(run(lambda tx: jobs.register(tx, "triggerer", me(), "run")))


def fired(trigger_id: int, epoch: int, value: object = None) -> TriggerReport:
    payload = msgspec.Raw(typedjson.encode(value))
    return TriggerReport(trigger_id, epoch, "fired", payload=payload)


# -- timers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 29, 1, 30, 0, 7, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1901, 2, 3, 4, 5, 6, 1, tzinfo=UTC),
    ],
)
def test_timer_event_is_the_due_moment(world: World, run: Run, moment: datetime) -> None:
    """The payload is what DateTimeTrigger yields: the moment itself, to the microsecond."""
    (number,) = world.defer([{"due_at": to_us(moment)}])
    assert run(lambda tx: timers.fire_timers(tx, max(now_us(), to_us(moment)), 10)) == 1
    event = world.events()[number]
    assert (event["kind"], event["value"], event["error"]) == ("fired", moment, None)
    assert event["value"].utcoffset() == timedelta(0)


def test_timers_fire_in_due_order_once_and_never_early(world: World, run: Run) -> None:
    """invariant S3: a batch takes the earliest, a second pass takes none of them again."""
    now = now_us()
    late, early, future = world.defer(
        [{"due_at": now - 1}, {"due_at": now - SECOND}, {"due_at": now + 1}]
    )
    assert run(lambda tx: timers.fire_timers(tx, now, 1)) == 1
    assert set(world.events()) == {early}
    assert run(lambda tx: timers.fire_timers(tx, now, 10)) == 1
    assert run(lambda tx: timers.fire_timers(tx, now, 10)) == 0
    assert set(world.events()) == {early, late}
    assert run(lambda tx: triggers.look(tx, 0)).next_due == now + 1
    assert world.count("fired_at IS NULL") == 1
    assert future not in world.events()


def test_timer_with_an_event_already_gets_no_second(world: World, run: Run) -> None:
    """When a time-out was written first, the timer's own event is dropped and it is done.

    By invariant S3.
    """
    now = now_us()
    (number,) = world.defer([{"due_at": now}])
    world.rows(
        "INSERT INTO trigger_event (trigger_id, epoch, kind, created_at) "
        "VALUES (:id, 0, 'timeout', :now)",
        id=number, now=now,
    )  # fmt: skip
    run(lambda tx: timers.fire_timers(tx, now, 10))
    assert world.events()[number]["kind"] == "timeout"
    assert run(lambda tx: triggers.look(tx, 0)).next_due is None


# -- claims ------------------------------------------------------------------------------------


def test_claim_takes_the_oldest_and_raises_the_epoch(world: World, run: Run) -> None:
    """Rule 3: every claim has an epoch of its own; timers are never claimed."""
    first, second, third = world.defer([{"cls": "Waits"}] * 3)
    world.defer([{"due_at": now_us()}])
    mine, other = join(run), join(run)
    assert run(lambda tx: triggers.claim(tx, mine, 2)) == {first: 1, second: 1}
    assert run(lambda tx: triggers.claim(tx, other, 9)) == {third: 1}
    assert run(lambda tx: triggers.claim(tx, other, 9)) == {}
    look = run(lambda tx: triggers.look(tx, mine))
    assert (look.waiting, look.held, look.held_sum) == (False, 2, first + second)
    run(lambda tx: triggers.release(tx, mine))
    assert run(lambda tx: triggers.claim(tx, other, 9)) == {first: 2, second: 2}


def test_claim_takes_the_heaviest_then_the_oldest(world: World, run: Run) -> None:
    """D16: by rank, which is minus the weight, then by age; also among some queues."""
    light, old, young, other = world.defer(
        [{"cls": "Waits", "rank": rank, "queue": "default"} for rank in (-1, -7, -7)]
        + [{"cls": "Waits", "rank": -9, "queue": "other"}]
    )
    mine = join(run)
    assert set(run(lambda tx: triggers.claim(tx, mine, 1, ("default",)))) == {old}
    assert set(run(lambda tx: triggers.claim(tx, mine, 1))) == {other}
    assert set(run(lambda tx: triggers.claim(tx, mine, 1))) == {young}
    assert set(run(lambda tx: triggers.claim(tx, mine, 1))) == {light}


def test_give_back_takes_the_last_in_line_and_fences_it(world: World, run: Run) -> None:
    """D17: the lightest and youngest of the queues go; their old claim's events are refused."""
    heavy, old, young, other = world.defer(
        [{"cls": "Waits", "rank": rank, "queue": "default"} for rank in (-5, 0, 0)]
        + [{"cls": "Waits", "rank": 0, "queue": "other"}]
    )
    mine, peer = join(run), join(run)
    run(lambda tx: triggers.claim(tx, mine, 9))
    assert run(lambda tx: triggers.counts(tx)) == {(mine, "default"): 3, (mine, "other"): 1}
    assert run(lambda tx: triggers.give_back(tx, peer, 9, ["default"])) == 0
    assert run(lambda tx: triggers.give_back(tx, mine, 2, ["default"])) == 2
    assert set(run(lambda tx: triggers.held(tx, mine))) == {heavy, other}
    assert run(lambda tx: trigger_events.store(tx, mine, [fired(young, 1)], now_us())) == []
    assert run(lambda tx: triggers.claim(tx, peer, 9)) == {old: 2, young: 2}
    assert run(lambda tx: trigger_events.store(tx, mine, [fired(young, 1)], now_us())) == []
    assert run(lambda tx: trigger_events.store(tx, peer, [fired(young, 2)], now_us())) == [young]


def test_claim_of_some_queues_only(world: World, run: Run) -> None:
    """D18: a triggerer with queues takes triggers of those alone."""
    _, gpu, big = world.defer(
        [{"cls": "Waits", "queue": queue} for queue in ("default", "gpu", "big")]
    )
    mine = join(run)
    assert run(lambda tx: triggers.claim(tx, mine, 9, ("gpu", "big"))) == {gpu: 1, big: 1}


def test_job_that_ended_claims_and_stores_nothing(world: World, run: Run) -> None:
    """invariant S15: what a triggerer does after others have ended its job has no effect."""
    (number,) = world.defer([{"cls": "Waits"}])
    mine = join(run)
    run(lambda tx: triggers.claim(tx, mine, 1))
    run(lambda tx: jobs.end(tx, mine))
    assert run(lambda tx: trigger_events.store(tx, mine, [fired(number, 1)], now_us())) == []
    run(lambda tx: triggers.release(tx, mine))
    assert run(lambda tx: triggers.claim(tx, mine, 1)) == {}
    assert world.events() == {}


def test_orphans_are_found_by_owner(world: World, run: Run) -> None:
    """Triggers of jobs that ended, or whose row was pruned, are seen; those of live ones not."""
    world.defer([{"cls": "Waits"}] * 6)
    live, ended, pruned = join(run), join(run), join(run)
    for job_id in (live, ended, pruned):
        run(partial(triggers.claim, job_id=job_id, batch=2))
    run(lambda tx: jobs.end(tx, ended))
    world.rows("DELETE FROM job WHERE id = :id", id=pruned)
    assert run(triggers.owners_without_job) == [ended, pruned]


def test_specs_and_sources_of_claimed_triggers(world: World, run: Run) -> None:
    """What a runner gets; a trigger that is not ours any more is left out."""
    first, second = world.defer(
        [{"cls": "Waits", "kwargs": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}] * 2
    )
    mine, other = join(run), join(run)
    run(lambda tx: triggers.claim(tx, mine, 1))
    run(lambda tx: triggers.claim(tx, other, 1))
    (spec,) = run(lambda tx: trigger_specs.specs(tx, mine, [first, second]))
    assert (spec.trigger_id, spec.epoch, spec.dag_id, spec.run_id) == (first, 1, "waits", "r")
    assert (spec.map_index, spec.try_number, spec.code_hash) == (-1, 1, HASH)
    assert typedjson.decode(spec.kwargs) == {"at": datetime(2026, 1, 1, tzinfo=UTC)}
    (source,) = run(lambda tx: trigger_specs.sources(tx, [HASH, "c" * 64]))
    assert source.source == CODE
    assert f"{world.module}:Waits" in source.triggers


# -- events ------------------------------------------------------------------------------------


def test_event_of_a_stale_claim_is_refused(world: World, run: Run) -> None:
    """After a takeover only the new owner's event counts, and only with its epoch.

    By invariants S2, S3.
    """
    (number,) = world.defer([{"cls": "Waits"}])
    stale, owner = join(run), join(run)
    run(lambda tx: triggers.claim(tx, stale, 1))
    run(lambda tx: triggers.release(tx, stale))
    run(lambda tx: triggers.claim(tx, owner, 1))

    def store(job_id: int, epoch: int, value: str) -> object:
        return run(
            lambda tx: trigger_events.store(tx, job_id, [fired(number, epoch, value)], now_us())
        )

    assert store(stale, 1, "stale owner, old epoch") == []
    assert store(stale, 2, "stale owner, new epoch") == []
    assert store(owner, 1, "owner, old epoch") == []
    assert store(owner, 2, "owner") == [number]
    assert store(owner, 2, "again") == []
    assert world.events()[number]["value"] == "owner"


def test_strike_counts_for_the_claim_in_force_only(world: World, run: Run) -> None:
    """D20, S15: strikes add up in the row; an older claim or another's job adds none."""
    me, other = join(run), join(run)
    (number,) = world.defer([{"cls": "Any"}])
    epoch = run(lambda tx: triggers.claim(tx, me, 10))[number]

    def strike(job_id: int, of_epoch: int, count: int, trouble: str) -> dict[int, int]:
        said = triggers.Strike(number, of_epoch, count, trouble)
        found: dict[int, int] = run(lambda tx: triggers.strike(tx, job_id, [said], 7 + count))
        return found

    assert strike(me, epoch, 1, "first") == {number: 1}
    assert strike(me, epoch - 1, 1, "stale") == {}
    assert strike(other, epoch, 1, "not its own") == {}
    assert strike(me, epoch, 0, "only told") == {number: 1}
    assert world.rows("SELECT strikes, trouble, trouble_at FROM trigger") == [
        {"strikes": 1, "trouble": "only told", "trouble_at": 7}
    ]
    world.rows("UPDATE trigger SET fired_at = 1")
    assert strike(me, epoch, 1, "too late") == {}


def test_a_strike_whose_answer_was_lost_is_written_once(world: World, run: Run) -> None:
    """D20: the same judgement written again adds nothing; the next one does, for each trigger."""
    me = join(run)
    numbers = world.defer([{"cls": "Any"}] * 2)
    epochs = run(lambda tx: triggers.claim(tx, me, 10))
    said = [triggers.Strike(one, epochs[one], count + 1, "t") for count, one in enumerate(numbers)]
    first, second = numbers
    for moment, expected in ((7, {first: 1, second: 2}), (8, {first: 2, second: 4})):
        judgement = partial(triggers.strike, job_id=me, strikes=said, now=moment)
        assert run(judgement) == expected
        assert run(judgement) == expected  # the answer of the commit was lost
    found = world.rows("SELECT strikes FROM trigger ORDER BY id")
    assert [row["strikes"] for row in found] == [2, 4]


def test_what_a_watcher_says_meanwhile_does_not_strike_it_twice(world: World, run: Run) -> None:
    """D13, D20: its trouble is stored between a judgement and its repetition, and is shown."""
    me = join(run)
    number = world.watch("Any", "{}")
    epoch = run(lambda tx: triggers.claim(tx, me, 10))[number]
    judgement = partial(
        triggers.strike, job_id=me, strikes=[triggers.Strike(number, epoch, 1, "it ended")], now=7
    )
    assert run(judgement) == {number: 1}
    trouble = watchers.Sighting(number, epoch, 1, trouble="the broker is closed")
    assert run(lambda tx: watchers.store(tx, me, [trouble])) == {(number, 1)}
    (told,) = world.rows("SELECT strikes, trouble, trouble_at FROM trigger")
    assert (told["strikes"], told["trouble"]) == (1, "the broker is closed")
    assert told["trouble_at"] > 7
    assert run(judgement) == {number: 1}  # the answer of the commit was lost


def test_events_of_cleared_triggers_are_left_out(world: World, run: Run) -> None:
    """An event that races a clear is no error, and does not hold up the others of its batch."""
    cleared, kept, failed = world.defer([{"cls": "Waits"}] * 3)
    mine = join(run)
    run(lambda tx: triggers.claim(tx, mine, 9))
    world.settle([cleared])
    error = TriggerReport(failed, 1, "failed", error="why 'it' \\ failed\n☃")
    reports = [fired(cleared, 1), fired(kept, 1, {"rows": [1, None, "ä"]}), error]
    assert run(lambda tx: trigger_events.store(tx, mine, reports, now_us())) == [kept, failed]
    events = world.events()
    assert events[kept]["value"] == {"rows": [1, None, "ä"]}
    assert (events[failed]["kind"], events[failed]["error"]) == ("failed", error.error)
    assert world.count("fired_at IS NULL") == 0
    assert run(lambda tx: triggers.look(tx, mine)).held == 0


def test_event_waits_for_a_clear_in_progress(world: World, run: Run, engine: Engine) -> None:
    """A clear that commits while an event is being written costs that event, not the batch."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time: there is nothing in progress")
    cleared, kept = world.defer([{"cls": "Waits"}] * 2)
    mine = join(run)
    run(lambda tx: triggers.claim(tx, mine, 9))
    reports = [fired(cleared, 1), fired(kept, 1)]
    blocked = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%told%'"
    )
    with ThreadPoolExecutor(1) as pool:
        with world.engine.begin() as clearing:
            clearing.execute(tables.trigger.delete().where(tables.trigger.c.id == cleared))
            storing = pool.submit(run, lambda tx: trigger_events.store(tx, mine, reports, now_us()))
            wait_until(lambda: world.rows(blocked), what="the event to wait for the clear")
        assert storing.result() == [kept]
    assert set(world.events()) == {kept}


# -- plans -------------------------------------------------------------------------------------

_ROWS = 50_000


@pytest.fixture
def crowd(world: World) -> World:
    """Many rows of each lane, most of them not what a statement looks for."""
    far = now_us() + 10**12
    world.defer([{"due_at": far + number} for number in range(_ROWS)])
    world.defer([{"cls": "Waits", "job_id": 10**6 + number % 3} for number in range(_ROWS)])
    if world.engine.dialect.name == "postgresql":
        world.rows("ANALYZE trigger")
    return world


def plan(tx: Tx, sql: Sql, **params: Any) -> str:
    explain = "EXPLAIN " if tx.dialect == "postgresql" else "EXPLAIN QUERY PLAN "
    rows = tx.connection.exec_driver_sql(explain + sql.text(tx.dialect), params)
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.timeout(120)
def test_no_statement_reads_the_whole_trigger_table(crowd: World, run: Run) -> None:
    """A million waiting rows must stay cheap: every statement goes by a partial index."""
    mine = join(run)
    now = now_us()
    statements: list[tuple[Sql, dict[str, Any]]] = [
        (triggers._LOOK, {"job_id": mine}),
        (triggers._OWNERLESS, {}),
        (triggers._CLAIM_FREE, {"job_id": mine, "batch": 100}),
        (triggers._HELD, {"job_id": mine}),
        (triggers._DISOWN, {"job_id": mine}),
    ]

    def check(tx: Tx) -> None:
        postgres = tx.dialect == "postgresql"
        fire = [timers._FIRE_POSTGRES] if postgres else [timers._FIRE_SQLITE]
        fire += [] if postgres else [timers._MARK_SQLITE]
        for sql, params in [*statements, *((sql, {"now": now, "batch": 9}) for sql in fire)]:
            text = plan(tx, sql, **params)
            assert "ix_trigger_" in text, text
            assert "Seq Scan on trigger" not in text, text
            assert "SCAN trigger\n" not in f"{text}\n", text

    run(check)
    few: dict[str, Any] = {"rows": '[{"id": 1}]'}
    told: dict[str, Any] = {"rows": "[]", "job_id": mine, "now": now}

    def check_by_id(tx: Tx) -> None:
        for sql, params in [(trigger_specs._SPECS, few), (trigger_events._STORE, told)]:
            text = plan(tx, sql, **params)
            assert "Seq Scan on trigger" not in text, text
            assert "SCAN t\n" not in f"{text}\n", text

    run(check_by_id)


def test_kills_are_settled_by_their_ids(world: World, run: Run) -> None:
    """D10: a user may end a hundred thousand waits at once, and they are settled in batches."""
    mine = join(run)
    kill = {
        "classpath": "Waits", "source": "waits:Waits", "kwargs": "{}", "code_hash": HASH,
        "fileloc": "waits.py", "queue": "default", "dag_id": "waits", "run_id": "r",
        "task_id": "t", "map_index": -1, "try_number": 1, "created_at": now_us(), "epoch": 1,
        "dispatch_id": 1, "job_id": mine,
    }  # fmt: skip
    with world.engine.begin() as db:
        db.execute(tables.trigger_kill.insert(), [{"id": n, **kill} for n in range(10_000)])
        db.exec_driver_sql("ANALYZE trigger_kill")
    params: dict[str, Any] = {"rows": '[{"id": 1, "epoch": 1}]', "job_id": mine}
    text = run(lambda tx: plan(tx, kills._FINISH, **params))
    by_id = ("Index Cond: (id = ", "USING INTEGER PRIMARY KEY (rowid=?)")
    assert any(words in text for words in by_id), text
    run(lambda tx: kills.finish(tx, mine, dict.fromkeys(range(9999), 1)))
    assert [row["id"] for row in world.rows("SELECT id FROM trigger_kill")] == [9_999]


def test_waits_for_runs_are_found_by_what_is_asked_for(world: World, run: Run) -> None:
    """A burst of waits has no statistics yet: each is not held against each key of a turn."""
    source = "roost.triggers.runs:DagRunTrigger"
    keys = [f"roost:run:{number}" for number in range(2_000)]
    found = world.defer(
        [{"lane": "external", "source": source, "external_key": key} for key in keys]
    )

    def check(tx: Tx) -> None:
        postgres = tx.dialect == "postgresql"
        by_key = awaited._BY_KEY_POSTGRES if postgres else awaited._BY_KEY
        text = plan(tx, by_key, rows='[{"key": "k"}]')
        assert ("Index Cond: (external_key = ANY" if postgres else "(external_key=?)") in text, text
        text = plan(tx, awaited._BY_ID, rows='[{"id": 1}]')
        assert ("Index Cond: (id = r.id)" if postgres else "(rowid=?)") in text, text

    run(check)
    asked = run(lambda tx: awaited.waiting_for(tx, keys[:2], found[2:4]))
    assert sorted(one.id for one in asked) == found[:4]


def test_the_log_names_tasks_and_watchers_alike(world: World, run: Run) -> None:
    """D5, D13: an id tells nobody whose a trigger is; one without a row has no name."""
    (task,) = world.defer([{"cls": "Waits"}])
    watcher = world.watch("Waits")
    found = run(lambda tx: triggers.labels(tx, [task, watcher, watcher + 1]))
    assert found == {
        task: (f"waits.t{task:07} run r", "waits", f"t{task:07}"),
        watcher: ("watcher w of asset a", "", ""),
    }
