"""Many DAGs at once, each a chain."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.ends import last_end
from benchmarks.harness import Bench, Record

_LENGTH = 10


def measure(bench: Bench) -> Iterator[Record]:
    """100 DAGs of 10 chained no-op tasks, all triggered in one moment."""
    number = bench.size(100)
    names = [f"many_{index:03}" for index in range(number)]
    with bench.site() as site:
        site.start_with({name: dags.chain(name, _LENGTH) for name in names})
        for run in range(bench.runs):
            site.quiet()
            span = site.span()
            began = site.trigger(names, [f"r{run}"])
            site.wait_runs(f"r{run}")
            wall = last_end(site, f"r{run}") - began
            figures = {"many_per_s": number * _LENGTH / wall, "many_wall_s": wall}
            yield bench.record(run, figures, span)
