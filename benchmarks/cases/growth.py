"""Whether a task costs more in a great run, or beside many runs, than in small ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import dags
from benchmarks.cases.ends import last_end
from benchmarks.cases.sched import INSTANT
from benchmarks.harness import Bench, Record
from benchmarks.machine import Span
from benchmarks.site import Site

__all__ = ["Cost", "cost_of", "measure", "record_of", "repeated"]

_LENGTH = 10


class Cost(NamedTuple):
    """Of one task: wall time and the scheduler's own CPU, both in microseconds."""

    wall_us: float
    cpu_us: float


def measure(bench: Bench) -> Iterator[Record]:
    """100 against 10,000 tasks in a run, 10 against 1,000 runs of 10 tasks; decisions alone."""
    few, great = bench.size(100), bench.size(10_000)
    with bench.site(INSTANT) as site:
        files = {"few": dags.fan("few", few), "great": dags.fan("great", great)}
        files["chain"] = dags.chain("chain", _LENGTH)
        site.start_with(files, "scheduler")
        for run in range(bench.runs):
            span = site.span()
            small = repeated(site, "few", f"few{run}", few, 1, 10)
            large = cost_of(site, "great", f"great{run}", great, 1)
            yield record_of(bench, run, "tasks", small, large, span)
            span = site.span()
            small = repeated(site, "chain", f"ten{run}", _LENGTH, 10, 5)
            large = cost_of(site, "chain", f"all{run}", _LENGTH, bench.size(1000))
            yield record_of(bench, run, "runs", small, large, span)


def repeated(site: Site, dag_id: str, name: str, tasks: int, runs: int, times: int) -> Cost:
    """The mean of several small measurements: one alone is mostly noise."""
    costs = [cost_of(site, dag_id, f"{name}x{number}", tasks, runs) for number in range(times)]
    return Cost(sum(c.wall_us for c in costs) / times, sum(c.cpu_us for c in costs) / times)


def cost_of(site: Site, dag_id: str, name: str, tasks: int, runs: int) -> Cost:
    """What one task cost in some runs of a DAG that begin now."""
    cpu = site.cpu_ns("scheduler")
    began = site.trigger([dag_id], [f"{name}_{number}" for number in range(runs)])
    site.wait_runs(f"{name}_%")
    wall = last_end(site, f"{name}_%") - began
    cpu = site.cpu_ns("scheduler") - cpu
    number = tasks * runs
    return Cost(wall * 1e6 / number, cpu / 1e3 / number)


def record_of(bench: Bench, run: int, what: str, small: Cost, large: Cost, span: Span) -> Record:
    """By how much a task costs more in the large."""
    figures = {
        f"growth_{what}_wall": large.wall_us / small.wall_us,
        f"growth_{what}_cpu": large.cpu_us / small.cpu_us,
        f"{what}_small_wall_us": small.wall_us,
        f"{what}_large_wall_us": large.wall_us,
        f"{what}_small_cpu_us": small.cpu_us,
        f"{what}_large_cpu_us": large.cpu_us,
    }
    return bench.record(run, figures, span)
