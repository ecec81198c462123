"""Events from outside and who waits for them, in statements: keep, wake, take, expire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from roost.models.engine import open_engine, transact
from roost.models.queries import external, triggers
from roost.models.queries.external import NewEvent
from roost.support.clock import SECOND, now_us
from tests.support.waiting import wait_until
from tests.triggerer.world import World

HOUR_US = 3600 * SECOND


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return World(database_url, tmp_path, "")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


def waits(key: str, **more: Any) -> dict[str, Any]:
    """The row of an ExternalTrigger."""
    return {
        "cls": "ExternalTrigger",
        "source": "roost.triggers.external:ExternalTrigger",
        "kwargs": {"key": key},
        "lane": "external",
        "external_key": key,
        **more,
    }


def as_it_is(_event_id: int, payload: str) -> str:
    return payload


def send(engine: Engine, key: str, payload: str = "null", **more: Any) -> int | None:
    event = NewEvent(key, payload, "test", **({"keep_us": HOUR_US} | more))
    return transact(engine, lambda tx: external.send(tx, event))


def match(engine: Engine) -> int:
    """One pass over every key; gives how many triggers it woke."""
    woken = 0
    after: str | None = ""
    while after is not None:
        step = partial(external.match, unseal=as_it_is, after=after)
        done = transact(engine, step)
        woken, after = woken + done.woken, done.after
    return woken


def heard(engine: Engine) -> bool:
    return transact(engine, lambda tx: triggers.look(tx, 0)).heard


def told(engine: Engine, event_id: int | None) -> external.Told:
    assert event_id is not None
    found = transact(engine, lambda tx: external.told(tx, event_id))
    assert found is not None
    return found


def test_event_wakes_all_of_its_key_and_nobody_else(world: World, engine: Engine) -> None:
    """N1-N3: the payload is the event; who waits for another key, or for a run, waits on."""
    first, other, second = world.defer([waits("a"), waits("ab"), waits("a")])
    run_key = "roost:run/d/r"
    source = "roost.triggers.runs:DagRunTrigger"
    world.defer([waits(run_key, source=source)])
    world.defer([{"due_at": now_us() + HOUR_US}])
    assert not heard(engine)
    event = send(engine, "a", '{"n":1}')
    assert heard(engine)
    assert match(engine) == 2
    assert not heard(engine)
    events = world.events()
    assert {number: row["value"] for number, row in events.items()} == {
        first: {"n": 1},
        second: {"n": 1},
    }
    assert {row["kind"] for row in events.values()} == {"fired"}
    assert told(engine, event).woken == 2
    assert told(engine, event).taken_at is not None
    assert world.count("fired_at IS NULL") == 3
    assert other not in events


def test_event_without_a_waiter_is_kept_for_the_next(world: World, engine: Engine) -> None:
    event = send(engine, "a", "1")
    assert not heard(engine)
    assert match(engine) == 0
    assert told(engine, event).taken_at is None
    (late,) = world.defer([waits("a")])
    assert heard(engine)
    assert match(engine) == 1
    assert world.events()[late]["value"] == 1
    (later,) = world.defer([waits("a")])
    assert match(engine) == 0
    assert later not in world.events()


def test_kept_events_of_a_key_go_in_order_one_wake_each(world: World, engine: Engine) -> None:
    """Each wake of a key takes its oldest event; the others are kept for who waits next."""
    events = [send(engine, "a", str(number)) for number in range(3)]
    got = []
    for _ in range(3):
        (number,) = world.defer([waits("a")])
        assert match(engine) == 1
        got.append(world.events()[number]["value"])
    assert got == [0, 1, 2]
    assert [told(engine, event).woken for event in events] == [1, 1, 1]


def test_expired_event_wakes_nobody(world: World, engine: Engine) -> None:
    event = send(engine, "a", keep_us=0)
    live = send(engine, "a", "1")
    (number,) = world.defer([waits("a")])
    assert match(engine) == 1
    assert world.events()[number]["value"] == 1
    assert told(engine, event).taken_at is None
    assert told(engine, live).taken_at is not None
    send(engine, "b", keep_us=0)
    world.defer([waits("b")])
    assert not heard(engine)


@pytest.mark.parametrize("gone", ["cleared", "timed out", "marked"])
def test_event_for_a_waiter_that_went_is_kept(world: World, engine: Engine, gone: str) -> None:
    """D6, invariant S3: it woke nobody, so the next one gets it."""
    (number,) = world.defer([waits("a")])
    event = send(engine, "a", "1")
    if gone == "timed out":
        world.rows(
            "INSERT INTO trigger_event (trigger_id, epoch, kind, created_at) "
            "VALUES (:id, 0, 'timeout', 0)",
            id=number,
        )
    else:
        world.settle([number])
    assert match(engine) == 0
    assert told(engine, event).taken_at is None
    assert not heard(engine), "a trigger with an event waits no more"
    world.settle([number])
    (after,) = world.defer([waits("a")])
    assert match(engine) == 1
    assert world.events()[after]["value"] == 1


@pytest.mark.parametrize("commits", [True, False])
def test_event_waits_for_a_clear_in_progress(
    world: World, engine: Engine, database_kind: str, commits: bool
) -> None:
    """A clear that commits keeps the event for the next; one that fails loses its task nothing."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer")
    (number,) = world.defer([waits("a")])
    event = send(engine, "a")
    woken: list[int] = []
    thread = threading.Thread(target=lambda: woken.append(match(engine)))
    with engine.connect() as other:
        transaction = other.begin()
        other.exec_driver_sql(f"DELETE FROM trigger WHERE id = {number}")  # noqa: S608
        thread.start()
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: world.rows(blocked)[0]["count"], what="the match to wait")
        transaction.commit() if commits else transaction.rollback()
    thread.join()
    assert woken == [0 if commits else 1]
    assert (told(engine, event).taken_at is None) == commits


def test_locked_event_is_another_triggerers_with_all_of_its_key(
    world: World, engine: Engine, database_kind: str
) -> None:
    """Two triggerers: the later event of a key does not pass the one that is being matched."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer")
    first, second = send(engine, "a", "1"), send(engine, "a", "2")
    send(engine, "b", "3")
    world.defer([waits("a"), waits("b")])
    with engine.begin() as other:
        lock = f"SELECT id FROM external_event WHERE id = {first} FOR UPDATE"  # noqa: S608
        other.exec_driver_sql(lock)
        assert match(engine) == 1, "only b"
    assert told(engine, second).taken_at is None
    assert match(engine) == 1
    assert told(engine, first).taken_at is not None
    assert told(engine, second).taken_at is None


def test_rivals_wake_everybody_once(world: World, engine: Engine) -> None:
    """invariant S3, D17: four at once on 40 keys with three events each; one wake for each key."""
    keys = [f"k{number}" for number in range(40)]
    world.defer([waits(key) for key in keys for _ in range(5)])
    for key in keys * 3:
        send(engine, key)
    woken: list[int] = []
    rivals = [threading.Thread(target=lambda: woken.append(match(engine))) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    woken.append(match(engine))
    assert sum(woken) == 200
    assert len(world.events()) == 200
    taken = world.rows("SELECT external_key, woken FROM external_event WHERE taken_at IS NOT NULL")
    assert sorted((row["external_key"], row["woken"]) for row in taken) == [
        (key, 5) for key in sorted(keys)
    ]


def test_ten_thousand_are_woken_by_one_event(world: World, engine: Engine) -> None:
    world.defer([waits("a") for _ in range(10_000)])
    event = send(engine, "a", '"go"')
    assert match(engine) == 10_000
    assert told(engine, event).woken == 10_000
    assert world.rows("SELECT count(*) AS n FROM trigger_event WHERE payload = '\"go\"'") == [
        {"n": 10_000}
    ]
    assert world.count("fired_at IS NULL") == 0


def test_unreadable_event_is_left_alone_and_others_are_not(world: World, engine: Engine) -> None:
    bad = send(engine, "a", "bad")
    send(engine, "b", "1")
    world.defer([waits("a"), waits("b")])

    def unseal(_event_id: int, payload: str) -> str:
        if payload == "bad":
            raise ValueError("no key fits")
        return payload

    done = transact(engine, lambda tx: external.match(tx, unseal))
    assert done == external.Matched(1, 1, [(bad or 0, "no key fits")], None)
    assert told(engine, bad).taken_at is None


def test_token_is_good_for_one_event_however_it_ends(world: World, engine: Engine) -> None:
    """Taken, deleted or expired: until the token has expired its row stays, empty."""
    until = now_us() + HOUR_US
    once = {"nonce": "n1", "token_until": until}
    assert send(engine, "a", "1", **once) is not None
    assert send(engine, "a", "2", **once) is None
    assert transact(engine, lambda tx: external.delete(tx, key="a")) == 1
    assert send(engine, "a", "3", **once) is None
    assert send(engine, "b", "4", keep_us=0, nonce="n2", token_until=until) is not None
    assert transact(engine, lambda tx: external.prune(tx, 10)) == 1
    assert transact(engine, lambda tx: external.prune(tx, 10)) == 0
    assert send(engine, "b", "5", nonce="n2", token_until=until) is None
    assert {row["payload"] for row in world.rows("SELECT payload FROM external_event")} == {""}
    world.defer([waits("a"), waits("b")])
    assert match(engine) == 0
    world.rows("UPDATE external_event SET expires_at = 0, token_until = 0")
    assert transact(engine, lambda tx: external.prune(tx, 10)) == 2
    assert world.rows("SELECT id FROM external_event") == []


def test_prune_takes_what_is_over_in_batches(world: World, engine: Engine) -> None:
    for _ in range(5):
        send(engine, "a", keep_us=0)
    kept = send(engine, "a")
    assert [transact(engine, lambda tx: external.prune(tx, 2)) for _ in range(4)] == [2, 2, 1, 0]
    assert [row["id"] for row in world.rows("SELECT id FROM external_event")] == [kept]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_prune_in_batches_leaves_no_token_good_again(
    world: World, engine: Engine, batch: int
) -> None:
    """However many expired events there are, a used token stays used until it has expired."""
    life: dict[str, Any] = {"keep_us": -1, "token_until": now_us() + HOUR_US}
    for number in range(3):
        send(engine, "k", nonce=f"n{number}", **life)
    send(engine, "k", keep_us=-1)
    while transact(engine, lambda tx: external.prune(tx, batch)):
        pass
    assert [send(engine, "k", nonce=f"n{number}", **life) for number in range(3)] == [None] * 3
    (left,) = world.rows("SELECT count(*) AS n FROM external_event")
    assert left["n"] == 3


def test_a_match_behind_many_keys_that_alternate_is_found(world: World, engine: Engine) -> None:
    """The look gives up in between and says that it may be; a pass goes on to the end."""
    world.defer([waits(f"k{number:05}a") for number in range(2000)])
    for number in range(0, 2000, 2):
        world.rows(
            "INSERT INTO external_event (external_key, payload, sender, created_at, expires_at) "
            "VALUES (:a, '1', 's', 0, 9000000000000000), (:b, '1', 's', 0, 9000000000000000)",
            a=f"k{number:05}b",
            b=f"k{number + 1:05}b",
        )
    assert match(engine) == 0
    send(engine, "k01999a")
    assert heard(engine)
    assert match(engine) == 1


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.sampled_from("abc")),
            st.tuples(st.just("wait"), st.sampled_from("abc")),
            st.tuples(st.just("clear"), st.sampled_from("abc")),
            st.tuples(st.just("match"), st.just("")),
        ),
        max_size=25,
    )
)
def test_keep_and_wake_in_any_order(
    world: World, engine: Engine, steps: list[tuple[str, str]]
) -> None:
    """invariant S3: as a queue of events a key, of which a match gives one to all who wait then."""
    world.rows("DELETE FROM external_event")
    world.rows("DELETE FROM trigger_event")
    world.rows("DELETE FROM trigger")
    kept: dict[str, list[int]] = {key: [] for key in "abc"}
    waiting: dict[str, list[int]] = {key: [] for key in "abc"}
    expected: dict[int, int] = {}
    for number, (what, key) in enumerate([*steps, ("match", "")]):
        if what == "send":
            send(engine, key, str(number))
            kept[key].append(number)
        elif what == "wait":
            waiting[key] += world.defer([waits(key)])
        elif what == "clear" and waiting[key]:
            world.settle([waiting[key].pop()])
        elif what == "match":
            both = [one for one in "abc" if kept[one] and waiting[one]]
            assert heard(engine) == bool(both)
            for one in both:
                value = kept[one].pop(0)
                expected.update(dict.fromkeys(waiting[one], value))
                waiting[one].clear()
            match(engine)
    assert {number: row["value"] for number, row in world.events().items()} == expected
