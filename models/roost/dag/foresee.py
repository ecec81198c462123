"""Ask a timetable of the user's own what comes next: only where its DAG file is parsed (H14)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

from roost.dag.model import SerializedDag, Upcoming
from roost.dag.schedule import DagRunInfo, DataInterval, TimeRestriction, Timetable
from roost.exceptions import DagError
from roost.support.clock import from_us, to_us

__all__ = ["FORESEEN", "foresee"]

FORESEEN = 50
# A year of minutes is passed over in less.
_LIMIT_S = 5.0


def foresee(
    timetable: Timetable, dag: SerializedDag, last: tuple[int, int] | None, now_us: int
) -> Upcoming:
    """The next runs that ``timetable`` names, at most :data:`FORESEEN`.

    Without catchup, runs whose moment has passed are left out but for the newest.

    Args:
        timetable: of the DAG.
        dag: the DAG.
        last: data interval of the newest scheduled run, None before the first.
        now_us: the current moment.

    Raises:
        DagError: it takes too long, does not advance, or returns something else than a run.
    """
    zone = ZoneInfo(dag.timetable.timezone)
    restriction = TimeRestriction(
        _moment(dag.start_date, zone), _moment(dag.end_date, zone), dag.catchup
    )
    before = None if last is None else DataInterval(*(from_us(us).astimezone(zone) for us in last))
    runs: list[tuple[int, int, int]] = []
    with _limit(f"DAG {dag.dag_id!r}: {type(timetable).__name__}"):
        for run in _runs(timetable, restriction, before):
            if dag.start_date is not None and run[0] < dag.start_date:
                continue
            if dag.end_date is not None and run[0] > dag.end_date:
                return Upcoming(runs, ended=True, catchup=dag.catchup)
            if not dag.catchup and runs and run[2] <= now_us:
                runs.clear()
            runs.append(run)
            if len(runs) == FORESEEN:
                return Upcoming(runs, catchup=dag.catchup)
    return Upcoming(runs, ended=True, catchup=dag.catchup)


def _runs(
    timetable: Timetable, restriction: TimeRestriction, last: DataInterval | None
) -> Iterator[tuple[int, int, int]]:
    of = f"{type(timetable).__name__}.next_dagrun_info()"
    newest = None if last is None else (to_us(last.start), 0)
    while True:
        info: Any = timetable.next_dagrun_info(
            last_automated_data_interval=last, restriction=restriction
        )
        if info is None:
            return
        if not isinstance(info, DagRunInfo) or not isinstance(info.data_interval, DataInterval):
            raise DagError(f"{of} must return a DagRunInfo or None, not {info!r}")
        start, end = (_us(of, moment) for moment in info.data_interval)
        run_after = _us(of, info.run_after)
        if end < start:
            raise DagError(f"{of} returned a data interval that ends before it starts: {info!r}")
        if newest is not None and not (start > newest[0] and run_after > newest[1]):
            raise DagError(
                f"{of} does not advance: after the run of {from_us(newest[0]).isoformat()} it "
                f"returned {info!r}; each logical date and run_after must be later"
            )
        yield start, end, run_after
        newest, last = (start, run_after), info.data_interval


@contextmanager
def _limit(of: str) -> Iterator[None]:
    """End what takes too long: an endless loop of the user's, or a schedule that never gets on."""

    def late(number: int, frame: FrameType | None) -> None:
        raise DagError(
            f"{of} took more than {_LIMIT_S:g} s to name {FORESEEN} runs; "
            "does next_dagrun_info() ever reach the present?"
        )

    try:
        before = signal.signal(signal.SIGALRM, late)
    except ValueError:  # not the main thread, where no signal can be caught
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _moment(us: int | None, zone: ZoneInfo) -> datetime | None:
    return None if us is None else from_us(us).astimezone(zone)


def _us(of: str, moment: object) -> int:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise DagError(f"{of} must give datetimes with a time zone, not {moment!r}")
    return to_us(moment)
