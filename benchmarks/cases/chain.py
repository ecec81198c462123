"""The pause between two tasks of a chain, and from a trigger to the first task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from benchmarks.dags import traced_chain
from benchmarks.harness import Bench, Record, percentile

_LENGTH = 20


def measure(bench: Bench) -> Iterator[Record]:
    """20 tasks one after the other; the pauses as the tasks themselves saw them."""
    with bench.site() as site:
        site.start_with({"chain": traced_chain("chain", _LENGTH, site.witness)})
        site.trigger(["chain"], ["warm"])
        site.wait_runs("warm")
        site.take_witness()
        for run in range(bench.runs):
            site.quiet()
            span = site.span()
            began = site.trigger(["chain"], [f"r{run}"])
            site.wait_runs(f"r{run}")
            lines = sorted(site.take_witness())
            hops = [(after[1] - before[2]) / 1e6 for before, after in pairwise(lines)]
            figures = {
                "hop_p50_ms": percentile(hops, 0.5),
                "hop_p90_ms": percentile(hops, 0.9),
                "hop_max_ms": max(hops),
                "trigger_to_first_ms": lines[0][1] / 1e6 - began * 1e3,
                "chain_total_s": lines[-1][2] / 1e9 - began,
            }
            yield bench.record(run, figures, span)
