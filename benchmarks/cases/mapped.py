"""Whether an instance of a mapped task costs more among 10,000 than among 100 (H17)."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.growth import cost_of, record_of, repeated
from benchmarks.cases.sched import INSTANT
from benchmarks.harness import Bench, Record

__all__ = ["measure"]


def measure(bench: Bench) -> Iterator[Record]:
    """One mapped task, with one task before it and one after all of its instances; decisions
    alone."""
    few, great = bench.size(100), bench.size(10_000)
    with bench.site({**INSTANT, "core.max_map_length": great}) as site:
        files = {"few": dags.mapped("few", few), "great": dags.mapped("great", great)}
        site.start_with(files, "scheduler")
        for run in range(bench.runs):
            span = site.span()
            small = repeated(site, "few", f"few{run}", few, 1, 10)
            large = cost_of(site, "great", f"great{run}", great, 1)
            yield record_of(bench, run, "mapped", small, large, span)
