"""Tasks that wait for one common moment: how fast they go to sleep, how fast they all wake."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import dags
from benchmarks.cases.ends import last_end
from benchmarks.harness import Bench, Record, percentile
from benchmarks.site import Site
from roost.models.engine import Sql
from tests.support.waiting import wait_until

_EACH = 100
_WAITING = Sql("SELECT count(*) AS n, max(created_at) AS last FROM trigger")


def measure(bench: Bench) -> Iterator[Record]:
    """1,000 tasks in runs of 100, with DateTimeTrigger."""
    runs = bench.size(10)
    with bench.site() as site:
        site.start_with({"defer": dags.defer("defer", _EACH, site.witness)})
        site.trigger(["defer"], ["warm"], _conf(time.time() - 1))
        site.wait_runs("warm")
        for run in range(bench.runs):
            site.take_witness()
            site.quiet()
            yield from _once(bench, site, run, runs)


def _conf(moment: float) -> str:
    return f'{{"moment": {moment:.6f}}}'


def _once(bench: Bench, site: Site, run: int, runs: int) -> Iterator[Record]:
    number = runs * _EACH
    moment = time.time() + 8 + number / 50
    span = site.span()
    began = site.trigger(["defer"], [f"r{run}_{i}" for i in range(runs)], _conf(moment))
    wait_until(lambda: _waiting(site)[0] == number, moment - time.time() - 2, "all deferred")
    slept = _waiting(site)[1] - began
    yield bench.record(run, {"deferred_per_s": number / slept}, span)
    site.quiet(max(0, moment - time.time() - 1))
    time.sleep(max(0, moment - time.time() - 0.5))
    span = site.span()
    site.wait_runs(f"r{run}_%")
    resumed = sorted(line[0] / 1e9 - moment for line in site.take_witness())
    over = last_end(site, f"r{run}_%") - moment
    figures = {
        "resume_first_ms": resumed[0] * 1e3,
        "resume_p99_s": percentile(resumed, 0.99),
        "resumed_per_s": number / over,
        "resume_total_s": over,
    }
    if len(resumed) != number:
        raise RuntimeError(f"{len(resumed)} resumes of {number} tasks")
    yield bench.record(run, figures, span)


def _waiting(site: Site) -> tuple[int, float]:
    (row,) = site.rows(_WAITING)
    return row.n, float(row.last or 0) / 1e6
