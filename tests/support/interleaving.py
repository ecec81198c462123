"""Two transactions at once, statement by statement, in every order that is told.

Each actor is a function in a thread of its own. Before each of its statements, and before its
commit, it waits until the test lets it go on. One that waits for a lock is left there while the
other one goes on, as two real processes would be: its turns come again when it has the lock.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from roost.models.sql import Sql, Tx

__all__ = ["Pair", "schedules"]

_PATIENCE_S = 30.0
_LOCKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND state = 'active' "
    "AND wait_event_type = 'Lock'"
)


def schedules(first: int, second: int, most: int, *, serial: bool) -> list[str]:
    """Orders of so many steps of ``a`` and ``b``, as texts like ``aabab``.

    All of them where they are few. Else all in which the two change places three times at most,
    and, up to ``most`` in all, some that are drawn by lot but always the same.

    Args:
        first: steps of ``a``.
        second: steps of ``b``.
        most: how many orders.
        serial: one after the other only: the database has one writer.
    """
    if serial:
        return ["a" * first + "b" * second, "b" * second + "a" * first]
    size = first + second
    if math.comb(size, first) <= most:
        return [
            "".join("a" if at in places else "b" for at in range(size))
            for places in map(set, itertools.combinations(range(size), first))
        ]
    found = dict.fromkeys(
        text
        for i, j in itertools.product(range(first + 1), range(second + 1))
        for text in (
            "a" * i + "b" * j + "a" * (first - i) + "b" * (second - j),
            "b" * j + "a" * i + "b" * (second - j) + "a" * (first - i),
        )
    )
    draw = random.Random(first * 1000 + second)  # noqa: S311 - the same orders each time
    letters = list("a" * first + "b" * second)
    for _ in range(20 * most):
        if len(found) >= most:
            break
        draw.shuffle(letters)
        found["".join(letters)] = None
    listed = list(found)
    if len(listed) <= most:
        return listed
    return draw.sample(listed, most)


def _firsts(order: str) -> list[str]:
    """Both names, whose turn comes first before the other."""
    return ["a", "b"] if order.startswith("a") else ["b", "a"]


class _Actor:
    def __init__(self, name: str, act: Callable[[], object], known: dict[int, _Actor]) -> None:
        self.name = name
        self._act = act
        self._known = known
        self.at_gate = threading.Event()
        self.may_go = threading.Event()
        self.ended = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.pid = 0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self._known[threading.get_ident()] = self
        try:
            self.result = self._act()
        except BaseException as error:  # told to the test
            self.error = error
        finally:
            del self._known[threading.get_ident()]
            self.ended = True
            self.at_gate.set()

    def gate(self) -> None:
        """Called in the actor's thread before a statement or a commit."""
        self.at_gate.set()
        if not self.may_go.wait(_PATIENCE_S):
            raise TimeoutError(f"nobody lets {self.name} go on")
        self.may_go.clear()


class Pair:
    """Runs pairs of actors on one engine.

    Args:
        engine: theirs; other threads use it undisturbed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._actors: dict[int, _Actor] = {}
        send = Tx._execute

        def execute(tx: Tx, sql: Sql, params: dict[str, Any]) -> Any:
            self._pass(tx._driver)
            return send(tx, sql, params)

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(Tx, "_execute", execute)
        event.listen(engine, "commit", self._commit)

    def close(self) -> None:
        """Take the gates away."""
        self._patch.undo()
        event.remove(self._engine, "commit", self._commit)

    def _pass(self, driver: Any) -> None:
        actor = self._actors.get(threading.get_ident())
        if actor is not None:
            actor.pid = driver.info.backend_pid
            actor.gate()

    def _commit(self, connection: Any) -> None:
        self._pass(connection.connection.dbapi_connection)

    def count(self, act: Callable[[], object]) -> int:
        """How many steps an actor has when nobody disturbs it."""
        if self._engine.dialect.name != "postgresql":
            act()
            return 1
        return len(self.run("a" * 200, act, lambda: None)[0])

    def run(
        self, order: str, a: Callable[[], object], b: Callable[[], object]
    ) -> tuple[str, Any, Any]:
        """Let both act in this order, then each to its end.

        Returns:
            What really was the order, as far as steps were made in turn, and what each returned.

        Raises:
            BaseException: what an actor raised.
        """
        if self._engine.dialect.name != "postgresql":  # one writer: one after the other
            done = {name: act() for name, act in ((n, {"a": a, "b": b}[n]) for n in _firsts(order))}
            return order, done["a"], done["b"]
        actors = {"a": _Actor("a", a, self._actors), "b": _Actor("b", b, self._actors)}
        for actor in actors.values():
            actor.thread.start()
        try:
            for actor in actors.values():
                actor.at_gate.wait(_PATIENCE_S)
            made = "".join(name for name in order if self._step(actors[name]))
            give_up = time.monotonic() + _PATIENCE_S
            while not all(actor.ended for actor in actors.values()):
                stepped = [self._step(actor) for actor in actors.values()]
                if not any(stepped):
                    assert time.monotonic() < give_up, f"stuck after {made} of {order}"
        finally:
            for actor in actors.values():
                actor.may_go.set()
        for actor in actors.values():
            actor.thread.join(_PATIENCE_S)
            if actor.error is not None:
                raise actor.error
        return made, actors["a"].result, actors["b"].result

    def _step(self, actor: _Actor) -> bool:
        """One statement; False where the actor has ended or waits for a lock."""
        if actor.ended or not actor.at_gate.is_set():
            actor.at_gate.wait(0.002)
            return False
        actor.at_gate.clear()
        actor.may_go.set()
        for _ in self._patiently():
            if actor.at_gate.wait(0.004):
                return True
            if actor.pid and self._is_locked(actor.pid):
                return True  # it made its step, and stands in it
        raise TimeoutError(f"{actor.name} neither goes on nor waits for a lock")

    @staticmethod
    def _patiently() -> Iterator[float]:
        give_up = time.monotonic() + _PATIENCE_S
        while time.monotonic() < give_up:
            yield give_up

    def _is_locked(self, pid: int) -> bool:
        with self._engine.connect() as connection:
            return bool(connection.execute(text(_LOCKED), {"pid": pid}).scalar())
