"""One trial: start everything, break it for a while, heal, drain, and judge."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.chaos import evidence, figures
from tests.chaos.bed import Bed
from tests.chaos.judge import leases, verdict
from tests.chaos.load import Load
from tests.chaos.nemesis import KINDS, Nemesis
from tests.chaos.users import Users
from tests.support.checker import violations

__all__ = ["Plan", "Result", "run"]

_STEP_S = 0.05
_TELL_S = 10.0
_START_S = 60.0
_BACK_AFTER_S = (0.2, 2.0)
_STATES = "SELECT state, count(*) AS n FROM task_instance GROUP BY state"
_OPEN = (
    "SELECT (SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')) "
    "+ (SELECT count(*) FROM dispatch WHERE NOT settled) "
    "+ (SELECT count(*) FROM asset_event WHERE NOT settled) "
    "+ (SELECT count(*) FROM asset_pending) + (SELECT count(*) FROM trigger_kill)"
)


@dataclass(frozen=True)
class Plan:
    """What a trial is to be.

    Attributes:
        seconds: of nemesis and load.
        every_s: a run starts so often.
        pause_s: bounds of the time between two blows.
        stop_s: bounds of the time for which a process is stopped.
        drain_s: how long what is left may take when all is healed.
        aim: the kind of daemon that all blows hit; empty: whoever.
        waits: whether waits of many seconds are part of the load.
        mutant: the guard that is dropped.
    """

    seconds: float
    seed: int
    database: str
    kinds: frozenset[str] = frozenset(KINDS)
    every_s: float = 0.8
    pause_s: tuple[float, float] = (1.0, 15.0)
    stop_s: tuple[float, float] = (1.0, 40.0)
    drain_s: float = 180.0
    aim: str = ""
    waits: bool = True
    mutant: str = ""


@dataclass
class Result:
    """What came of it: ``violations`` is empty when all is well."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Result:
    """Carry a trial out; what all processes wrote stays in ``folder``."""
    result = Result(plan)
    bed = Bed(folder, plan.database, plan.mutant)
    try:
        trial = _Trial(bed, plan, tell)
        try:
            trial.start()
            trial.rage()
            if not trial.drain():
                result.violations.append(f"L5: not all ended {plan.drain_s:g} s after the healing")
        finally:
            result.violations += trial.close()
        for member in bed.members.values():
            member.close()
            result.violations += member.unexpected
        found = evidence.read(bed.database.engine, folder)
        result.violations += violations(bed.database.engine)
        result.violations += verdict(found)
        doomed = {pid: at for m in bed.members.values() for pid, at in m.doomed.items()}
        result.violations += leases(found, trial.nemesis.blows, doomed)
        result.figures = {
            "runs": sum(trial.load.started.values()),
            "blows": dict(trial.nemesis.counts),
            "refused_starts": sum(member.refused for member in bed.members.values()),
            "restarts": sum(member.starts - 1 for member in bed.members.values()),
            **figures.figures(found, trial.nemesis.blows, bed.logs()),
        }
    finally:
        bed.close()
    return result


class _Trial:
    """Bed, load and nemesis, all turned by one loop: daemons live as long as their thread."""

    def __init__(self, bed: Bed, plan: Plan, tell: Callable[[str], None]) -> None:
        self.bed, self.plan = bed, plan
        rng = random.Random(plan.seed)  # noqa: S311 - what a seed gives is to be seen again
        self.load = Load(bed, rng, plan.every_s, waits=plan.waits)
        rng = random.Random(plan.seed + 1)  # noqa: S311
        kinds = set(plan.kinds)
        self.nemesis = Nemesis(bed, rng, kinds, plan.pause_s, plan.stop_s, plan.aim)
        self._rng = random.Random(plan.seed + 2)  # noqa: S311
        self._tell = tell
        self.users: Users | None = None
        self._began = time.monotonic()
        self._told = 0.0

    def start(self) -> None:
        """All daemons, and the DAGs parsed."""
        self._supervise()
        give_up = time.monotonic() + _START_S
        while not self.load.known():
            if time.monotonic() > give_up:
                raise TimeoutError(f"the DAGs were not parsed:\n{self.bed.logs()}")
            self._supervise()
            time.sleep(_STEP_S)
        self.users = Users(self.bed.folder, self.bed.environments["a"], self.plan.seed + 3)
        self._began = time.monotonic()

    def rage(self) -> None:
        """Load and nemesis, for as long as the plan says."""
        while time.monotonic() - self._began < self.plan.seconds:
            self._supervise()
            if (blow := self.nemesis.tick()) is not None:
                self._say(str(blow))
            self._turn(more=True)

    def drain(self) -> bool:
        """Mend everything; whether what was started then ends."""
        self._say("healing")
        if self.users is not None:
            self.users.calm()
        self.nemesis.let_go()
        self.bed.database.up_at = min(self.bed.database.up_at, time.monotonic())
        for member in self.bed.members.values():
            member.resume()
            member.start_at = min(member.start_at, time.monotonic())
        give_up = time.monotonic() + self.plan.drain_s
        while time.monotonic() < give_up:
            self._supervise()
            self._turn(more=False)
            if not self.load.waiting and self._count(_OPEN) == 0:
                self._say("drained")
                return True
        self._say("not drained")
        return False

    def close(self) -> list[str]:
        """Of what this process holds; what is wrong with the trial itself."""
        self.nemesis.let_go()
        self.load.close()
        return [] if self.users is None else self.users.close()

    def _supervise(self) -> None:
        self.bed.database.tick()
        for member in self.bed.members.values():
            member.tick(_BACK_AFTER_S, self._rng)

    def _turn(self, *, more: bool) -> None:
        if not self.nemesis.holds:
            self.load.tick(more=more)
        if time.monotonic() - self._told >= _TELL_S:
            self._say("")
        time.sleep(_STEP_S)

    def _say(self, what: str) -> None:
        if not what:
            self._told = time.monotonic()
            what = f"{sum(self.load.started.values())} runs started; {self._states()}"
        self._tell(f"{time.monotonic() - self._began:7.1f}  {what}")

    def _states(self) -> str:
        if self.nemesis.holds or self.bed.database.up_at:
            return "the database is away"
        try:
            with self.bed.database.engine.connect() as db:
                counts = Counter({row.state: row.n for row in db.execute(text(_STATES))})
        except Exception as error:
            return f"the database is away: {type(error).__name__}"
        return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))

    def _count(self, sql: str) -> int:
        try:
            with self.bed.database.engine.connect() as db:
                return int(db.execute(text(sql)).scalar_one())
        except Exception:
            return -1
