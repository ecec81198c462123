"""From the start of the processes to the first task of a run that waited for them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.dags import traced_chain
from benchmarks.harness import Bench, Record


def measure(bench: Bench) -> Iterator[Record]:
    """The run is queued and its DAG parsed; then all three daemons start at once."""
    with bench.site() as site:
        site.start_with({"chain": traced_chain("chain", 2, site.witness)})
        for run in range(bench.runs):
            site.stop()
            site.trigger(["chain"], [f"r{run}"])
            site.take_witness()
            began = time.time()
            site.start()
            ready = time.time() - began
            site.wait_runs(f"r{run}")
            first = min(site.take_witness())[1] / 1e9 - began
            yield bench.record(run, {"start_to_first_s": first, "start_to_ready_s": ready})
