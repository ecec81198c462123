"""Which files to parse again because the runs that their timetables named run out (H14).

Only timetables of the user's own are asked in advance. That costs one statement when moments that
were named have passed, and nothing in between.
"""

from __future__ import annotations

import time

import msgspec
from sqlalchemy import Engine

from roost.dag.model import Upcoming
from roost.dag.timetable import listed_runs
from roost.models.engine import read
from roost.models.queries import dags
from roost.scheduler.parsing.pool import Past
from roost.support.clock import now_us

__all__ = ["FEWEST", "RunningOut"]

FEWEST = 10
# A file whose timetable fails, or cannot get ahead, is not parsed all the time.
_AGAIN_S = 30.0


class RunningOut:
    """Knows how far the lists of coming runs reach.

    Args:
        engine: the metadata database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._check_at: int | None = 0  # us; None: there is no such timetable
        self._asked: dict[str, float] = {}  # by file, when it was last asked for

    def look_again(self) -> None:
        """Files were parsed: what was known does not hold any more."""
        self._check_at = 0

    def files(self) -> set[str]:
        """Files to parse now, relative to the DAGs folder."""
        now = now_us()
        if self._check_at is None or now < self._check_at:
            return set()
        with read(self._engine) as tx:
            customs = dags.custom_dags(tx)
        checks: list[int] = []
        found: set[str] = set()
        for dag in customs:
            upcoming = msgspec.json.decode(dag.upcoming, type=Upcoming)
            if upcoming.ended:
                continue
            moment, short = _reach(upcoming, _interval(dag), now)
            checks.append(moment)
            if short and time.monotonic() - self._asked.get(dag.fileloc, -_AGAIN_S) >= _AGAIN_S:
                found.add(dag.fileloc)
        for fileloc in found:
            self._asked[fileloc] = time.monotonic()
        self._check_at = min(checks, default=None)
        return found

    def past(self, paths: dict[str, str]) -> dict[str, Past]:
        """What the timetables of files need to know, by absolute path.

        Args:
            paths: the files, absolute path by relative.
        """
        with read(self._engine) as tx:
            customs = dags.custom_dags(tx)
        found: dict[str, Past] = {}
        for dag in customs:
            interval = _interval(dag)
            if interval is not None and dag.fileloc in paths:
                found.setdefault(paths[dag.fileloc], {})[dag.dag_id] = interval
        return found


def _interval(dag: dags.CustomDag) -> tuple[int, int] | None:
    if dag.interval_start is None or dag.interval_end is None:
        return None
    return dag.interval_start, dag.interval_end


def _reach(upcoming: Upcoming, last: tuple[int, int] | None, now: int) -> tuple[int, bool]:
    """From when on fewer than FEWEST runs may be left, and whether so few are."""
    left = listed_runs(upcoming, last)
    if not upcoming.catchup:
        left = [run for run in left if run[2] > now]
    if len(left) < FEWEST:
        return 0, True
    return left[-FEWEST][2], False
