"""The nemesis: breaks something every few seconds, whatever its seed says, and remembers it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from tests.chaos.bed import Bed, Member

__all__ = ["KINDS", "Blow", "Nemesis"]

_ON_SERVER = {"db-crash", "db-outage", "db-cut"}
_ON_FILE = {"db-lock"}
# How often each is chosen among the others.
KINDS = {
    "kill": 5,
    "host-lost": 2,
    "term": 2,
    "stop": 3,
    "freeze": 2,
    "runner-kill": 3,
    "runner-stop": 1,
    "db-crash": 3,
    "db-outage": 1,
    "db-cut": 1,
    "db-lock": 2,
}
_GONE_S = (16.0, 25.0)
_CRASH_S = (0.0, 3.0)
_OUTAGE_S = (13.0, 35.0)
_LOCK_S = (0.5, 20.0)


class Blow(NamedTuple):
    """What was done: to whom (a pid where it was a process), when by the wall clock, how long."""

    at: float
    kind: str
    target: str
    pid: int
    seconds: float

    def __str__(self) -> str:
        how_long = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{how_long}"


class Nemesis:
    """Deals one blow after the other.

    Args:
        pause_s: shortest and longest time between two of them.
        stop_s: of a SIGSTOP.
        kinds: those it may choose from.
        aim: the kind of daemon that all of them hit; empty: whoever.
    """

    def __init__(
        self,
        bed: Bed,
        rng: random.Random,
        kinds: set[str],
        pause_s: tuple[float, float],
        stop_s: tuple[float, float],
        aim: str = "",
    ) -> None:
        impossible = _ON_FILE if bed.database.server is not None else _ON_SERVER
        self._bed, self._rng, self._pause_s = bed, rng, pause_s
        self._stop_s, self._aim = stop_s, aim
        self._kinds = sorted(kinds - impossible)
        self._next = 0.0
        self._held = ExitStack()
        self._release_at = 0.0
        self.blows: list[Blow] = []
        self.counts: Counter[str] = Counter()

    @property
    def holds(self) -> bool:
        """Whether it keeps everybody from writing, us included."""
        return self._release_at > 0

    def tick(self) -> Blow | None:
        """The next blow, when its time has come and there is something left to hit."""
        now = time.monotonic()
        if self._release_at and now >= self._release_at:
            self.let_go()
        if not self._next:
            self._next = now + self._rng.uniform(*self._pause_s)
        if now < self._next or not self._kinds:
            return None
        self._next = now + self._rng.uniform(*self._pause_s)
        kind = self._rng.choices(self._kinds, [KINDS[one] for one in self._kinds])[0]
        blow = self._database(kind) if kind.startswith("db-") else self._process(kind)
        if blow is not None:
            self.blows.append(blow)
            self.counts[kind] += 1
        return blow

    def let_go(self) -> None:
        """Of the database's lock."""
        self._held.close()
        self._release_at = 0.0

    def _database(self, kind: str) -> Blow | None:
        database = self._bed.database
        seconds = 0.0
        if database.up_at or self.holds:
            return None
        if kind == "db-cut":
            with suppress(DBAPIError):  # it is busy recovering
                database.cut()
        elif kind == "db-lock":
            seconds = self._rng.uniform(*_LOCK_S)
            self._held.enter_context(database.held())
            self._release_at = time.monotonic() + seconds
        else:
            seconds = self._rng.uniform(*(_CRASH_S if kind == "db-crash" else _OUTAGE_S))
            database.crash(seconds)
        return Blow(time.time(), kind, "database", 0, seconds)

    def _process(self, kind: str) -> Blow | None:
        members = [member for member in self._targets(kind) if member.runs]
        if not members:
            return None
        member = self._rng.choice(members)
        assert member.process is not None
        pid, seconds = member.process.pid, 0.0
        match kind:
            case "host-lost":
                seconds = self._rng.uniform(*_GONE_S)
                for other in self._bed.members.values():
                    if other.host == member.host:
                        other.die(seconds)
            case "kill":
                member.die()
            case "term":
                member.term()
            case "stop" | "freeze":
                seconds = self._rng.uniform(*self._stop_s)
                member.stop(seconds, whole=kind == "freeze")
            case _:
                runners = member.runners()
                if not runners:
                    return None
                pid = self._rng.choice(runners)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kind == "runner-kill" else signal.SIGSTOP)
        return Blow(time.time(), kind, member.name, pid, seconds)

    def _targets(self, kind: str) -> Iterator[Member]:
        """Half of the blows hit a triggerer: it is their test."""
        members = list(self._bed.members.values())
        if self._aim:
            yield from (member for member in members if member.kind == self._aim)
            return
        triggerers = [member for member in members if member.kind == "triggerer"]
        only = kind in ("host-lost", "freeze") or kind.startswith("runner-")
        yield from triggerers if only or self._rng.random() < 0.5 else members
