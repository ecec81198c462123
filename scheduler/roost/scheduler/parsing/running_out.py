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

__all__ = ["FEWEST", "RunningOut", "reach"]

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
            check_at = reach(dag, now)
            if check_at is None:
                continue
            checks.append(check_at)
            if (
                not check_at
                and time.monotonic() - self._asked.get(dag.fileloc, -_AGAIN_S) >= _AGAIN_S
            ):
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
            if dag.interval is not None and dag.fileloc in paths:
                found.setdefault(paths[dag.fileloc], {})[dag.dag_id] = dag.interval
        return found


def reach(dag: dags.CustomDag, now: int) -> int | None:
    """From when on fewer than FEWEST of the runs that were named may be left.

    Returns:
        0: so few are left already. None: no more will be named.
    """
    upcoming = msgspec.json.decode(dag.upcoming, type=Upcoming)
    if upcoming.ended:
        return None
    left = listed_runs(upcoming, dag.interval)
    if not upcoming.catchup:
        left = [run for run in left if run[2] > now]
    return 0 if len(left) < FEWEST else left[-FEWEST][2]
