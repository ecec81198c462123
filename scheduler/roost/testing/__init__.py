"""Test DAGs: the real scheduler, in this process, on a clock that jumps from event to event.

``run_dag`` runs a DAG once, ``run_schedule`` a span of its schedule, :class:`Simulation` gives
the whole of it. Nothing is installed, started or left behind.
"""

from __future__ import annotations

from roost.testing.results import SimulatedRun, SimulatedTask
from roost.testing.shortcuts import run_dag, run_schedule
from roost.testing.simulation import Simulation, SimulationStuck
from roost.testing.stub import Stub

__all__ = [
    "SimulatedRun",
    "SimulatedTask",
    "Simulation",
    "SimulationStuck",
    "Stub",
    "run_dag",
    "run_schedule",
]
