"""One run, or a span of a schedule, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from roost.dag.definition import DAG
from roost.testing.results import SimulatedRun
from roost.testing.simulation import Simulation

__all__ = ["run_dag", "run_schedule"]


def run_dag(
    dag: DAG | str | Path,
    *,
    dag_id: str | None = None,
    logical_date: datetime | None = None,
    conf: Mapping[str, Any] | None = None,
    **options: Any,
) -> SimulatedRun:
    """Run a DAG once by hand, to its end.

    Args:
        dag: the DAG, or the path of its file.
        dag_id: which one, where the file has several.
        logical_date: what it runs for; the clock starts there. Default: now.
        conf: of the run.
        **options: see :class:`Simulation`.

    Returns:
        The run as it ended.
    """
    options.setdefault("start", logical_date)
    simulation = Simulation(dag, **options)
    run = simulation.trigger(dag_id, logical_date=logical_date, conf=conf)
    simulation.run()
    return run


def run_schedule(
    dag: DAG | str | Path,
    start: datetime,
    end: datetime,
    *,
    dag_id: str | None = None,
    **options: Any,
) -> list[SimulatedRun]:
    """Run the schedule of a DAG from one moment to another.

    Args:
        dag: the DAG, or the path of its file.
        start: where the clock starts.
        end: where it stops.
        dag_id: which one, where the file has several.
        **options: see :class:`Simulation`.

    Returns:
        The runs by logical date; the last ones may be unfinished at ``end``.
    """
    simulation = Simulation(dag, start=start, **options)
    simulation.run_until(end)
    return simulation.runs(dag_id)
