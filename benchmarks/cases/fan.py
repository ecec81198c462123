"""Independent no-op tasks, a process each."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.ends import last_end
from benchmarks.harness import Bench, Record


def measure(bench: Bench) -> Iterator[Record]:
    """500 of them in one run, from the trigger to the end of the last."""
    size = bench.size(500)
    with bench.site() as site:
        site.start_with({"fan": dags.fan("fan", size), "warm": dags.fan("warm", 50)})
        site.trigger(["warm"], ["warm"])
        site.wait_runs("warm")
        for run in range(bench.runs):
            site.quiet()
            span = site.span()
            began = site.trigger(["fan"], [f"r{run}"])
            site.wait_runs(f"r{run}")
            wall = last_end(site, f"r{run}") - began
            yield bench.record(run, {"fan_per_s": size / wall, "fan_wall_s": wall}, span)
