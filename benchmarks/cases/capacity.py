"""How fast a triggerer takes up triggers that have to be run, and what each of them costs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.copies import copy_waits
from benchmarks.harness import Bench, Record
from benchmarks.site import Site
from roost.models.engine import Sql
from tests.support.waiting import wait_until

_ONE = Sql("SELECT count(*) AS n FROM trigger WHERE lane = 'poll'")


def measure(bench: Bench) -> Iterator[Record]:
    """10,000 poll triggers appear at once, as rows copied from one that a task really made."""
    number = bench.size(10_000)
    for run in range(bench.runs):
        with bench.site({"triggerer.capacity": 20_000}) as site:
            site.start_with({"waiting": dags.count_waits("waiting", site.witness)})
            site.trigger(["waiting"], ["r"])
            wait_until(lambda: site.rows(_ONE)[0].n == 1, 30, "the first trigger")
            wait_until(lambda: _started(site) == 1, 30, "the first trigger to run")
            site.stop("scheduler", "worker")
            yield _once(bench, site, run, number)


def _started(site: Site) -> int:
    return site.witness.stat().st_size if site.witness.exists() else 0


def _once(bench: Bench, site: Site, run: int, number: int) -> Record:
    site.quiet()
    empty = site.memory_mb("triggerer")["triggerer"]

    copy_waits(site, number)
    span = site.span()
    began = time.time()
    site.ring("triggerer")
    wait_until(lambda: _started(site) >= number + 1, 300, "all triggers to run")
    taken = site.witness.stat().st_mtime - began
    made = bench.record(run, {"capacity_taken_s": taken}, span)
    site.quiet()
    full = site.memory_mb("triggerer")["triggerer"]
    made.figures["capacity_kb_each"] = round((full - empty) * 1024 / number, 3)
    idle = site.span()
    time.sleep(10 * min(1.0, bench.scale * 2))
    wall, cpu, _ = idle.done()
    made.figures["capacity_waiting_cpu_pct"] = round(100 * cpu["triggerer"] / wall, 2)
    return made
