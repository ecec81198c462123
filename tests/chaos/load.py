"""The load: runs started at a steady pace, and the events and files that their tasks wait for.

What users do beside it, edits and ``roost events send``, is in :mod:`tests.chaos.users`.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from sqlalchemy import Engine, text

from roost.exceptions import RoostException
from roost.models.engine import is_passing, read, transact
from roost.models.queries import external, listing
from roost.models.queries.external import NewEvent
from roost.models.transitions import NewRun, create_run
from roost.support.clock import SECOND, now_us
from roost.support.config import load_config
from roost.support.crypto import keyring_of
from roost.support.doorbell import Doorbell
from tests.chaos import scripts
from tests.chaos.bed import Bed

__all__ = ["Load"]

_ACTIVE = "SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')"
_KEYS = (
    "SELECT external_key FROM trigger WHERE external_key IS NOT NULL AND fired_at IS NULL "
    "AND lane = 'external'"
)
_KEEP_US = 86_400 * SECOND


@dataclass
class Load:
    """Starts runs, and does later what they wait for; each step again until the database took it.

    Attributes:
        waits: whether waits of many seconds are among them.
        active: most runs at once: what is killed is slower than what is started.
        started: how many runs of each DAG.
        sent: every key that an event was sent for.
    """

    bed: Bed
    rng: random.Random
    every_s: float
    waits: bool = True
    active: int = 40
    started: dict[str, int] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._engine: Engine = self.bed.database.engine
        self._keys = keyring_of(load_config(environ=self.bed.environments["a"]))
        self._bells = [Doorbell(self.bed.folder / host / "run") for host in ("a", "b")]
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count(1)
        self._next_run = 0.0
        self._next_thing = self._next_wave = 0.0
        self._things = self._waves = 0
        self._next_look = 0.0
        self._order: list[str] = []

    @property
    def waiting(self) -> int:
        """How much is yet to be done later."""
        seen = [file for name in ("beach", "surf") for file in (self.bed.folder / name).iterdir()]
        return len(self._later) + len(seen)

    def known(self) -> bool:
        """Whether all DAGs have been parsed."""
        with read(self._engine) as tx:
            return all(listing.dag_details(tx, dag) is not None for dag in scripts.SCRIPTS)

    def tick(self, *, more: bool) -> None:
        """Do what is due; ``more``: start runs, too."""
        now = time.monotonic()
        try:
            while self._later and self._later[0][0] <= now:
                self._later[0][2]()
                heapq.heappop(self._later)
            if now >= self._next_look:
                self._next_look = now + 0.3
                self._answer()
            if more and now >= self._next_run:
                self._next_run = now + self.every_s
                if self._count() < self.active:
                    self._start_run()
            if more and now >= self._next_thing:
                self._next_thing = now + self.rng.uniform(0.2, 3)
                self._wash_up()
            if more and now >= self._next_wave:
                self._next_wave = now + self.rng.uniform(0.3, 4)
                self._raise_wave()
        except Exception as error:
            if not is_passing(error):
                raise
            self._next_look = self._next_run = now + 0.5

    def _count(self) -> int:
        with self._engine.connect() as db:
            return int(db.execute(text(_ACTIVE)).scalar_one())

    def _at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), act))

    def _start_run(self) -> None:
        if not self._order:
            others = scripts.WATCHED if self.waits else scripts.WATCHED | scripts.WAITING
            self._order = [dag_id for dag_id in scripts.SCRIPTS if dag_id not in others]
            self.rng.shuffle(self._order)
        dag_id = self._order[-1]
        number = self.started.get(dag_id, 0) + 1
        run_id = f"{dag_id}-{number}"
        for task_id, script in scripts.SCRIPTS[dag_id].items():
            for hop, step in enumerate(script[0]):
                what, _, how = step.partition(":")
                place = "%".join(map(str, [dag_id, run_id, task_id, -1, 1, hop, how]))
                if what == "file":
                    self._at(self.rng.uniform(0, 6), self._touch(place))
                elif how == "before":
                    self._send(place)
                elif how == "during":
                    self._at(self.rng.uniform(0, 4), lambda key=place: self._send(key))  # type: ignore[misc]
        self._create(dag_id, run_id)
        self.started[dag_id] = number
        self._order.pop()
        self._ring("scheduler")

    def _wash_up(self) -> None:
        """Something for the watcher to see, named for good."""
        self._things += 1
        thing = f"{self._things:06}"
        scripts.testify(self.bed.folder, "thing", thing=thing)
        (self.bed.folder / "beach" / thing).touch()

    def _raise_wave(self) -> None:
        """Something for those who share a stream, likewise."""
        self._waves += 1
        wave = f"{self._waves:06}"
        scripts.testify(self.bed.folder, "wave", wave=wave)
        (self.bed.folder / "surf" / wave).touch()

    def _create(self, dag_id: str, run_id: str) -> None:
        def step(tx):  # type: ignore[no-untyped-def]
            row = listing.dag_details(tx, dag_id)
            if row is None:
                raise RoostException(f"{dag_id} was not parsed")
            now = now_us()
            new = NewRun(dag_id, run_id, "manual", row.version_id, now, now, now, now)
            create_run(tx, new, actor="chaos")  # None: the answer to its commit was lost

        transact(self._engine, step)

    def _touch(self, place: str) -> Callable[[], None]:
        return lambda: (self.bed.folder / "files" / place).touch()

    def _answer(self) -> None:
        """Send what waiting tasks have not been sent yet, after a while."""
        with self._engine.connect() as db:
            waiting = {str(row[0]) for row in db.execute(text(_KEYS))}
        for key in sorted(waiting - self.sent):
            again = key.split("%")[4] != "1"  # a try after a user's clear: nobody has sent it yet
            if key.endswith("%after") or (again and not key.endswith("%asked")):
                self.sent.add(key)
                self._at(self.rng.uniform(0, 2), lambda key=key: self._send(key))  # type: ignore[misc]

    def _send(self, key: str) -> None:
        scripts.testify(self.bed.folder, "send", key=key)
        event = NewEvent(key, self._keys.encrypt(f'"{key}"'), "chaos", _KEEP_US)
        transact(self._engine, lambda tx: external.send(tx, event))
        self.sent.add(key)
        self._ring("triggerer")

    def _ring(self, kind: str) -> None:
        for bell in self._bells:
            bell.ring(kind)

    def close(self) -> None:
        """Close the bells."""
        for bell in self._bells:
            bell.close()
