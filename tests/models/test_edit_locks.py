"""A user's edit and a scheduler's turn never overlap (PostgreSQL; SQLite has one writer)."""

from __future__ import annotations

import threading

import pytest

from roost.models.engine import transact
from tests.scheduler.hands import World, ok, task
from tests.support.waiting import wait_until

_WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def test_an_edit_waits_for_the_turn_that_is_under_way(
    database_url: str, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn decides what follows a success; the edit comes after it as a whole, or before."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer")
    world = World(database_url)
    world.start(task("a", "b"), task("b"))
    (a,) = world.claim()
    world.end(a, ok())
    inside, may_go_on = threading.Event(), threading.Event()

    def slow(engine: object, step: object, *, attempts: int = 5) -> object:
        def stepping(tx: object) -> object:
            done = step(tx)  # type: ignore[operator]
            inside.set()
            may_go_on.wait(30)
            return done

        return transact(engine, stepping, attempts=attempts)  # type: ignore[arg-type]

    monkeypatch.setattr("roost.scheduler.loop.transact", slow)
    turn = threading.Thread(target=world.turn)
    turn.start()
    inside.wait(30)
    edit = threading.Thread(target=world.clear, args=("a",))
    edit.start()
    wait_until(lambda: world.fetch(_WAITING)[0].n >= 1, what="the edit to wait")
    may_go_on.set()
    turn.join()
    edit.join()
    monkeypatch.undo()
    assert world.states() == {"a": "none", "b": "queued"}
    world.turns()
    assert sorted(world.work()) == ["a", "b"]
    world.check()
    world.close()
