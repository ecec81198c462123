"""The DAGs of a simulation: loaded once, stored as if they had been parsed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType

from sqlalchemy import Engine

from roost.dag.definition import DAG
from roost.dag.foresee import foresee
from roost.dag.loader import LoadedFile, known_triggers, load_dag_file, read_source
from roost.dag.model import ParsedFile, SerializedDag
from roost.dag.schedule import Timetable
from roost.dag.serialize import serialize_dag
from roost.dag.starting import import_start_triggers
from roost.dag.timetable import Interval, infer_manual_interval
from roost.exceptions import DagError
from roost.models.engine import Tx, read, transact
from roost.models.queries import dags
from roost.scheduler.parsing.running_out import reach
from roost.scheduler.parsing.store import store_file

__all__ = ["Files"]

Last = tuple[int, int]
"""Data interval of the newest scheduled run."""


class Files:
    """Everything that a simulation runs.

    Args:
        dags: a DAG, the path of a DAG file, or several of them.

    Raises:
        DagError: a file cannot be loaded, a DAG is wrong, or two have one id.

    Attributes:
        loaded: the files by their place below the DAGs folder; a DAG that was given as an object
            is a file of its own.
    """

    def __init__(self, dags: DAG | str | Path | Iterable[DAG | str | Path]) -> None:
        several = [dags] if isinstance(dags, DAG | str | Path) else list(dags)
        self.loaded: dict[str, LoadedFile] = {}
        for one in several:
            if isinstance(one, DAG):
                self._add(f"{one.dag_id}.py", _as_file(one))
            else:
                path = os.path.abspath(one)
                folder = os.path.dirname(path)
                self._add(os.path.basename(path), load_dag_file(path, read_source(path), folder))
        self._serialized: dict[str, SerializedDag] = {
            dag_id: serialize_dag(dag)
            for loaded in self.loaded.values()
            for dag_id, dag in loaded.dags.items()
        }
        self._custom: dict[str, Timetable] = {
            dag_id: dag.schedule
            for loaded in self.loaded.values()
            for dag_id, dag in loaded.dags.items()
            if isinstance(dag.schedule, Timetable)
            and self._serialized[dag_id].timetable.kind == "custom"
        }
        if not self._serialized:
            raise DagError(f"there is no DAG in {', '.join(self.loaded) or 'nothing'}")

    def _add(self, fileloc: str, loaded: LoadedFile) -> None:
        known = {dag_id for other in self.loaded.values() for dag_id in other.dags}
        twice = sorted(known & set(loaded.dags))
        if twice or fileloc in self.loaded:
            raise DagError(f"DAG {(twice or [fileloc])[0]!r} is given twice; give each once")
        self.loaded[fileloc] = loaded

    def run_bodies_of(self, names: Collection[str]) -> None:
        """Have these tasks run a body, which a stub stands in for, and not start in a trigger.

        Args:
            names: ``task_id``, ``dag_id.task_id``, or ``*`` for every task.
        """
        for dag_id, dag in self._serialized.items():
            for task in dag.tasks:
                if not {task.task_id, f"{dag_id}.{task.task_id}", "*"}.isdisjoint(names):
                    task.start = None

    @property
    def dag_ids(self) -> list[str]:
        """Every DAG."""
        return list(self._serialized)

    @property
    def queues(self) -> set[str]:
        """Every queue that a task names, and the default one."""
        tasks = (task for dag in self._serialized.values() for task in dag.tasks)
        return {"default", *(task.queue for task in tasks)}

    @property
    def have_slas(self) -> bool:
        """Whether any task has an ``sla``."""
        return any(task.sla_us for dag in self._serialized.values() for task in dag.tasks)

    def interval(self, dag_id: str, at: int) -> Interval:
        """The data interval of a run that is started by hand at ``at`` (microseconds)."""
        return infer_manual_interval(self._serialized[dag_id].timetable, at)

    def store(self, engine: Engine, clock: Callable[[], int]) -> None:
        """Store all of them as new and not paused."""
        for fileloc in self.loaded:
            self._store(engine, clock, fileloc, {})

    def keep_up(self, engine: Engine, clock: Callable[[], int]) -> None:
        """Ask timetables of the user's own what comes next, as a parser does."""
        if not self._custom:
            return
        with read(engine) as tx:
            customs = dags.custom_dags(tx)
        for fileloc in {dag.fileloc for dag in customs if reach(dag, clock()) == 0}:
            past = {dag.dag_id: dag.interval for dag in customs if dag.interval is not None}
            self._store(engine, clock, fileloc, past)

    def _store(
        self, engine: Engine, clock: Callable[[], int], fileloc: str, past: dict[str, Last]
    ) -> None:
        loaded = self.loaded[fileloc]
        parsed = ParsedFile(
            loaded.code_hash,
            "",
            loaded.helpers,
            [self._serialized[dag_id] for dag_id in loaded.dags],
            sorted(loaded.triggers),
            upcoming={
                dag_id: foresee(
                    self._custom[dag_id], self._serialized[dag_id], past.get(dag_id), clock()
                )
                for dag_id in loaded.dags
                if dag_id in self._custom
            },
        )

        def step(tx: Tx) -> str | None:
            return store_file(tx, fileloc, parsed, stamp="", took_us=0, paused=False, clock=clock)

        error = transact(engine, step)
        if error is not None:
            raise DagError(error)


def _as_file(dag: DAG) -> LoadedFile:
    """A DAG that was made in a test, as the only one of a file."""
    import_start_triggers((dag, *dag.subdags()))
    module = sys.modules.get("__main__") or ModuleType("simulated")
    return LoadedFile(
        dags={one.dag_id: one for one in (dag, *dag.subdags())},
        triggers=known_triggers(),
        module=module,
        helpers=[],
        code_hash=f"{dag.dag_id}-simulated"[:64],
    )
