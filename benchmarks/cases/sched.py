"""Decisions alone: an executor that says success at once, so nothing else is measured."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.ends import last_end
from benchmarks.harness import Bench, Record

__all__ = ["INSTANT", "measure"]

# The peer's tuned figures were taken with parallelism 512.
INSTANT = {"core.executor": "instant", "core.parallelism": 512}
_LENGTH = 10


def measure(bench: Bench) -> Iterator[Record]:
    """100 runs of chains of 10, and one run of 1,000 parallel tasks."""
    each, size = bench.size(10), bench.size(1000)
    names = [f"chain_{index}" for index in range(10)]
    with bench.site(INSTANT) as site:
        files = {name: dags.chain(name, _LENGTH) for name in names}
        site.start_with({**files, "wide": dags.fan("wide", size)}, "scheduler")
        for run in range(bench.runs):
            site.quiet()
            span = site.span()
            began = site.trigger(names, [f"chains{run}_{index}" for index in range(each)])
            site.wait_runs(f"chains{run}_%")
            wall = last_end(site, f"chains{run}_%") - began
            rate = len(names) * each * _LENGTH / wall
            yield bench.record(run, {"sched_chains_per_s": rate}, span)
            site.quiet()
            span = site.span()
            began = site.trigger(["wide"], [f"wide{run}"])
            site.wait_runs(f"wide{run}")
            wall = last_end(site, f"wide{run}") - began
            yield bench.record(run, {"sched_wide_per_s": size / wall}, span)
