"""What became of a simulated run: its row and those of its task instances, read when asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roost.models.engine import read
from roost.models.queries import simulated
from roost.models.sql import Row
from roost.support import typedjson
from roost.support.clock import from_us

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["SimulatedRun", "SimulatedTask"]


def _moment(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


class SimulatedTask:
    """One task instance as it stands now.

    Attributes:
        task_id: its task.
        map_index: -1 for one that is not mapped.
        state: e.g. ``success``.
        tries: how many tries it had.
        start_date: of its last try, on the simulation's clock.
        end_date: of its last try.
        error: why its last try failed: a line or a traceback.
    """

    def __init__(self, keeper: object, engine: Engine, row: Row) -> None:
        self._keeper = keeper
        self._engine = engine
        self._id = row.id
        self.task_id: str = row.task_id
        self.map_index: int = row.map_index
        self.state: str = row.state
        self.tries: int = row.try_number
        self.start_date = _moment(row.start_date)
        self.end_date = _moment(row.end_date)

    @property
    def error(self) -> str | None:
        """Why it failed, was skipped or retried last; None where nothing was said."""
        with read(self._engine) as tx:
            return simulated.last_reason(tx, self._id)

    @property
    def events(self) -> list[str]:
        """Every move of it so far, e.g. ``["schedule", "enqueue", "start", "succeed"]``."""
        with read(self._engine) as tx:
            return simulated.moves(tx, self._id)

    def xcom(self, key: str = "return_value") -> Any:
        """The value that it left under ``key``, None if there is none."""
        with read(self._engine) as tx:
            text = simulated.xcom(tx, self._id, key)
        return None if text is None else typedjson.decode(text.encode())

    def __repr__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"<{self.task_id}{mapped} {self.state} after {self.tries} tries>"


class SimulatedRun:
    """One DAG run; every attribute is read when it is asked for.

    ``run["task"]`` is a task's instance, ``run["task", 2]`` that of a map index.
    """

    def __init__(self, keeper: object, engine: Engine, key: int) -> None:
        self._keeper = keeper  # whose database is deleted when nobody holds it any more
        self._engine = engine
        self._key = key

    def _row(self) -> Row:
        with read(self._engine) as tx:
            return simulated.run(tx, self._key)

    @property
    def dag_id(self) -> str:
        """Its DAG."""
        return str(self._row().dag_id)

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self._row().run_id)

    @property
    def run_type(self) -> str:
        """``scheduled``, ``manual`` or ``backfill`` (S27)."""
        return str(self._row().run_type)

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return str(self._row().state)

    @property
    def logical_date(self) -> datetime | None:
        """What it runs for (S20)."""
        return _moment(self._row().logical_date)

    @property
    def data_interval(self) -> tuple[datetime | None, datetime | None]:
        """Start and end of the data that it is for."""
        row = self._row()
        return _moment(row.interval_start), _moment(row.interval_end)

    @property
    def start_date(self) -> datetime | None:
        """When it started, on the simulation's clock."""
        return _moment(self._row().start_date)

    @property
    def end_date(self) -> datetime | None:
        """When it ended."""
        return _moment(self._row().end_date)

    @property
    def tasks(self) -> list[SimulatedTask]:
        """Its task instances, in the order of the DAG."""
        with read(self._engine) as tx:
            return [
                SimulatedTask(self._keeper, self._engine, row)
                for row in simulated.instances(tx, self._key)
            ]

    @property
    def states(self) -> dict[str, str]:
        """State by task_id; ``task[2]`` names an instance of a mapped task."""
        return {
            task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]": task.state
            for task in self.tasks
        }

    def __getitem__(self, name: str | tuple[str, int]) -> SimulatedTask:
        task_id, map_index = (name, -1) if isinstance(name, str) else name
        for task in self.tasks:
            if (task.task_id, task.map_index) == (task_id, map_index):
                return task
        known = ", ".join(self.states)
        raise KeyError(f"run {self.run_id!r} has no task instance {name!r}; it has {known}")

    def __iter__(self) -> Iterator[SimulatedTask]:
        return iter(self.tasks)

    def __repr__(self) -> str:
        return f"<run {self.run_id} of {self.dag_id}: {self.state}>"
