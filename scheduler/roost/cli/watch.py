"""Watching tasks as they move: woken by the daemons' own doorbells, else by the clock."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import click
from sqlalchemy import Engine

from roost.cli.output import paint
from roost.cli.words import counted
from roost.exceptions import NotFound
from roost.models.engine import Tx, read
from roost.models.queries import listing
from roost.models.queries.event_tail import EventTail
from roost.models.states import Event
from roost.support.clock import SECOND, from_us
from roost.support.config import Config
from roost.support.doorbell import Doorbell, drain

__all__ = ["ImportErrors", "Pace", "event_line", "follow_run"]

_FIRST_S = 0.03
# So long without any news, and one wants to know what is being waited for.
_STILL_S = 10.0
_ERRORS_S = 1.0
# States that a person waits for; scheduled and queued are passed through in between.
_SHOWN = frozenset(
    {"running", "deferred", "up_for_retry", "success", "failed", "skipped", "upstream_failed"}
)


class Pace:
    """When to look next: soon after something rang or moved, then ever more rarely.

    A ring precedes what it causes, so one look is not enough: the pause after it doubles from
    30 ms up to ``longest`` seconds.

    Args:
        run_dir: where the bells of this home's daemons are.
        longest: seconds between two looks when nothing happens.
    """

    def __init__(self, run_dir: Path, longest: float) -> None:
        self.longest = longest
        self.sockets: list[socket.socket] = []
        self._run_dir = run_dir
        self._pause = _FIRST_S
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        bell = self._stack.enter_context(Doorbell(self._run_dir))
        try:
            for kind in ("scheduler", "worker", "triggerer"):
                self.sockets.append(self._stack.enter_context(bell.listen(kind)))
        except OSError:
            # Another user's home, or a full disk: the clock alone does it as well.
            self.longest = min(self.longest, 1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def moved(self, cost: float = 0.0) -> None:
        """Something happened: look again soon, but spend at most a fifth of the time looking.

        Args:
            cost: seconds that the look took.
        """
        self._pause = max(_FIRST_S, 4 * cost)

    def next_pause(self) -> float:
        """Seconds until the next look, unless something rings before."""
        pause, self._pause = self._pause, min(self._pause * 2, self.longest)
        return pause

    def heard(self) -> None:
        """Take the rings off the sockets; what they announce is there within a moment."""
        if sum(drain(heard) for heard in self.sockets):
            self.moved()

    def wait(self) -> None:
        """Sleep until it is time to look."""
        readable, _, _ = select.select(self.sockets, [], [], self.next_pause())
        if readable:
            self.heard()


class ImportErrors:
    """The DAG files that cannot be imported, told once each time that one changes."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._next = 0.0

    def new(self, tx: Tx) -> list[str]:
        """A line for each file that broke, broke otherwise or was mended since the last call."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + _ERRORS_S
        now = {row.fileloc: row.error.strip().splitlines()[-1] for row in listing.import_errors(tx)}
        told, self._told = self._told, now
        lines = [
            f"{file} cannot be imported: {error}; see `roost dags list-import-errors`"
            for file, error in now.items()
            if told.get(file) != error
        ]
        return lines + [f"{file} is mended or gone" for file in told if file not in now]


def event_line(row: Any, *, with_run: bool) -> str | None:
    """One event as a line; None for those that nobody waits for."""
    lost = row.event == Event.LOSE  # back to scheduled: it runs again, and one wants to know why
    if row.to_state not in _SHOWN and not lost:
        return None
    at = from_us(row.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    where = f"{row.dag_id} {row.run_id} " if with_run else ""
    if not row.task_id:
        return f"{at}  {where}{'(run)' if with_run else 'run':<24} {paint(row.to_state)}"
    name = row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"
    remark = f"  (try {row.try_number})" if (row.try_number or 0) > 1 else ""
    if row.reason:
        remark += f"  {row.reason.strip().splitlines()[-1]}"
    word = "lost" if lost else paint(row.to_state)
    return f"{at}  {where}{name:<24} {word}{remark}"


def follow_run(config: Config, engine: Engine, run: Any, tail: EventTail, *, err: bool) -> Any:
    """Print a run's progress until it is finished; gives its last row.

    Args:
        run: its row, as ``listing.run_row`` reads it.
        tail: made before the run was created, so that it misses nothing.
        err: print to stderr, for stdout carries data.
    """
    moved_at: float | None = time.monotonic()  # None: it was said that nothing moves
    with Pace(config.run_dir, 1.0) as pace:
        while True:
            began = time.monotonic()
            with read(engine) as tx:
                # The run's row first: what it says is finished has all its events behind it.
                now = listing.run_row(tx, run.dag_id, run.run_id)
                events = tail.new(tx)
            for line in filter(None, (event_line(row, with_run=False) for row in events)):
                click.echo(line, err=err)
            if now is None:
                raise NotFound(f"run {run.run_id!r} of {run.dag_id} was deleted meanwhile")
            if now.end_date is not None:
                break
            if events:
                moved_at = time.monotonic()
                pace.moved(moved_at - began)
            elif moved_at is not None and began - moved_at > _STILL_S:
                moved_at = None
                command = f"roost tasks why {run.dag_id} {run.run_id} TASK"
                click.echo(f"run {paint(now.state)}, nothing moves; `{command}` says why", err=True)
            pace.wait()
    with read(engine) as tx:
        rows = listing.instance_rows(tx, run.id)
    click.echo(_summary(now, rows), err=err)
    for row in rows:
        if row.state == "failed":
            command = f"roost tasks logs {now.dag_id} {now.run_id} {row.task_id}"
            click.echo(f"failed: {row.task_id} (try {row.try_number}); {command}", err=err)
    return now


def _summary(run: Any, rows: list[Any]) -> str:
    took = (run.end_date - run.queued_at) / SECOND
    states = counted(row.state for row in rows)
    return f"run {run.run_id} {paint(run.state)} after {took:.2f} s: {states or 'no tasks'}"
