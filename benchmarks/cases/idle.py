"""What Roost takes while it does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import dags
from benchmarks.harness import Bench, Record
from benchmarks.site import Site

_WATCH_S = 30.0


def measure(bench: Bench) -> Iterator[Record]:
    """Scheduler, triggerer and worker with all their children: fresh, and after 80 tasks."""
    with bench.site() as site:
        site.start_with({"fan": dags.fan("fan", 80)})
        time.sleep(5)
        for run in range(bench.runs):
            yield _watch(bench, site, run)
        site.trigger(["fan"], ["r"])
        site.wait_runs("r")
        site.quiet()
        figures = {"idle_after_80_mb": sum(site.memory_mb().values())}
        yield bench.record(0, figures)


def _watch(bench: Bench, site: Site, run: int) -> Record:
    seconds = _WATCH_S * min(1.0, bench.scale * 2)
    memory = site.memory_mb()
    counting = site.kind == "postgresql"
    before = site.server.counters(site.database_name) if counting else (0, 0)
    span = site.span()
    time.sleep(seconds)
    wall, cpu, other = span.done()
    figures = {
        "idle_mb": sum(memory.values()),
        "idle_cpu_pct": 100 * sum(cpu[daemon] for daemon in site.running) / wall,
        **{f"idle_{daemon}_mb": value for daemon, value in memory.items()},
        **{f"idle_{daemon}_cpu_pct": 100 * cpu[daemon] / wall for daemon in site.running},
    }
    if counting:
        after = site.server.counters(site.database_name)
        figures["idle_statements_per_s"] = (after[0] - before[0]) / wall
        figures["idle_commits_per_s"] = (after[1] - before[1]) / wall
    made = bench.record(run, figures)
    made.cpu_s = {daemon: round(value, 2) for daemon, value in cpu.items()}
    made.other_cores = round(other, 2)
    return made
