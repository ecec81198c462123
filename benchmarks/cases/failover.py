"""What it takes until waits go on elsewhere: a runner, a triggerer or a host is gone, or one joins;
and until a task whose wait has timed out has failed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

from benchmarks import dags
from benchmarks.cases.copies import copy_waits
from benchmarks.cases.timers import lateness, sampled
from benchmarks.harness import Bench, Record, percentile
from benchmarks.site import Site
from roost.models.engine import Sql
from roost.support.clock import SECOND, now_us
from tests.chaos.bed import INJECT
from tests.support.daemons import Daemon
from tests.support.waiting import wait_until

_NUMBER = 1_000
_ONE_BY_ONE = 100
_APART_S = 0.08
_EVEN = 0.55
_PATIENCE_S = 120

_ONE = Sql("SELECT count(*) AS n FROM trigger WHERE lane = 'poll'")
_HELD = Sql(
    "SELECT j.pid, count(*) AS n FROM trigger t JOIN job j ON j.id = t.job_id "
    "WHERE j.ended_at IS NULL GROUP BY j.pid"
)
_TIMEOUTS = Sql(
    "SELECT g.ti_id, g.timeout_at FROM trigger g JOIN dag_run r ON r.id = g.dag_run_id "
    "WHERE r.run_id = :run_id AND g.timeout_at IS NOT NULL"
)
_FAILED = Sql(
    "SELECT e.id, e.ti_id FROM event_log e JOIN dag_run r ON r.id = e.dag_run_id "
    "WHERE r.run_id = :run_id AND e.to_state = 'failed' AND e.ti_id IS NOT NULL ORDER BY e.id"
)
_OVER = Sql("SELECT count(*) AS n FROM dag_run WHERE run_id = :run_id AND state = 'failed'")
_SEEN = Sql("SELECT {now} AS at, (SELECT max(id) FROM event_log) AS last")


def measure(bench: Bench) -> Iterator[Record]:
    """1,000 poll triggers, as rows copied from one that a task made, and 100 and 1,000 time-outs.

    A host is lost on PostgreSQL only: two hosts do not share a file.
    """
    for run in range(bench.runs):
        with bench.site() as site:
            yield from _triggerers(bench, site, run, bench.size(_NUMBER))
    with bench.site() as site:
        sizes = bench.size(_ONE_BY_ONE), bench.size(_NUMBER)
        files = {f"by{size}": dags.timeouts(f"by{size}", size) for size in sizes}
        site.start_with(files)
        _late(site, f"by{sizes[0]}", "warm", sizes[0], 0.01)
        for run in range(bench.runs):
            yield _timeouts(bench, site, run, *sizes)


# -- who runs them -----------------------------------------------------------------------------


def _triggerers(bench: Bench, site: Site, run: int, number: int) -> Iterator[Record]:
    site.start_with({"waiting": dags.count_waits("waiting", site.witness)})
    site.trigger(["waiting"], ["r"])
    wait_until(lambda: site.rows(_ONE)[0].n == 1, 30, "the first trigger")
    site.stop("scheduler", "worker")
    copy_waits(site, number - 1)
    site.ring("triggerer")
    for name, number_of_signal in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        # A triggerer that has had no bad runner yet: the second one in a row would be held back.
        site.stop("triggerer")
        first = _start(site, "triggerer")
        wait_until(lambda: _held(site, first) == number, _PATIENCE_S, "the claims")  # noqa: B023
        site.quiet()
        span = site.span()
        after = _until_started(site, number, lambda: _signal_runner(first, number_of_signal))  # noqa: B023
        yield bench.record(run, {f"failover_runner_{name}_s": after}, span)
    yield bench.record(run, _join(site, first, number, "second"))
    after = _until_started(site, _held(site, first), lambda: _lose(site, "triggerer"))
    yield bench.record(run, {"failover_triggerer_killed_s": after})
    second = site.running["second"]
    site.start("scheduler")
    _join(site, second, number, "third")
    third = _held(site, site.running["third"])
    after = _until_started(site, third, lambda: _lose(site, "third"))
    yield bench.record(run, {"failover_beside_scheduler_s": after})
    site.stop("scheduler")
    if bench.kind == "sqlite":
        return
    _join(site, second, number, "far", "far")
    far = _held(site, site.running["far"])
    after = _until_started(site, far, lambda: _lose(site, "far"))
    yield bench.record(run, {"failover_host_lost_s": after})


def _start(site: Site, name: str, host: str = "") -> Daemon:
    """Start a triggerer, of a host of its own where that is named."""
    env = {"ROOST_CHAOS_HOST": host, "PYTHONPATH": str(INJECT)} if host else {}
    site.running[name] = site.daemons.start("triggerer", env=env)
    return site.running[name]


def _join(site: Site, first: Daemon, number: int, name: str, host: str = "") -> dict[str, float]:
    """Another triggerer comes to one that has all; figures of the split."""
    before = _started(site)
    second = _start(site, name, host)
    began = time.time()
    wait_until(
        lambda: number * (1 - _EVEN) <= _held(site, second) <= number * _EVEN,
        _PATIENCE_S,
        "an even split",
    )
    took = time.time() - began
    site.quiet()
    parts = _held(site, first), _held(site, second)
    wait_until(lambda: _started(site) - before >= parts[1], _PATIENCE_S, "them to run there")
    return {"failover_even_s": took, "failover_larger_part_pct": 100 * max(parts) / number}


def _held(site: Site, daemon: Daemon) -> int:
    return {row.pid: int(row.n) for row in site.rows(_HELD)}.get(daemon.pid, 0)


def _started(site: Site) -> int:
    """How often a trigger has begun to run so far: each of them writes a byte."""
    return site.witness.stat().st_size if site.witness.exists() else 0


def _until_started(site: Site, number: int, blow: Callable[[], None]) -> float:
    """Seconds from a blow until so many triggers have begun to run."""
    before = _started(site)
    began = time.time()
    blow()
    what = f"{number} triggers to run again"
    wait_until(lambda: _started(site) >= before + number, _PATIENCE_S, what)
    return site.witness.stat().st_mtime - began


def _signal_runner(daemon: Daemon, number: int) -> None:
    (runner,) = daemon.family()
    os.kill(runner, number)


def _lose(site: Site, name: str) -> None:
    """SIGKILL to a triggerer and to all below it."""
    daemon = site.running.pop(name)
    for pid in (daemon.pid, *daemon.family()):
        os.kill(pid, signal.SIGKILL)
    daemon.kill()


# -- time-outs ---------------------------------------------------------------------------------


def _timeouts(bench: Bench, site: Site, run: int, few: int, many: int) -> Record:
    span = site.span()
    single = _late(site, f"by{few}", f"few{run}", few, _APART_S)
    together = _late(site, f"by{many}", f"many{run}", many, 0)
    return bench.record(
        run,
        {
            "timeouts_p50_ms": percentile(single, 0.5),
            "timeouts_p99_ms": percentile(single, 0.99),
            "timeouts_max_ms": max(single),
            "timeouts_together_p50_ms": percentile(together, 0.5),
            "timeouts_together_p99_ms": percentile(together, 0.99),
            "timeouts_together_max_ms": max(together),
        },
        span,
    )


def _late(site: Site, dag_id: str, run_id: str, number: int, apart_s: float) -> list[float]:
    """Milliseconds from each time-out until another connection saw that its task has failed."""
    moment = time.time() + 4 + number / 40
    site.trigger([dag_id], [run_id], f'{{"moment": {moment}, "step": {apart_s}}}')
    wait_until(
        lambda: len(site.rows(_TIMEOUTS, run_id=run_id)) == number,
        moment - time.time() - 0.5,
        "all to wait",
    )
    due = {row.ti_id: row.timeout_at for row in site.rows(_TIMEOUTS, run_id=run_id)}
    site.quiet(max(0, moment - time.time() - 1.5))
    if now_us() > min(due.values()):
        raise RuntimeError("the first had timed out before all waited")
    with sampled(site, _SEEN) as samples:
        time.sleep((max(due.values()) - now_us()) / SECOND)
        wait_until(lambda: site.rows(_OVER, run_id=run_id)[0].n, 120, "all of them to fail")
    failed = site.rows(_FAILED, run_id=run_id)
    if len(failed) != number:
        raise RuntimeError(f"{len(failed)} of {number} tasks have failed")
    return [late * 1e3 for late in lateness(samples, [(row.id, due[row.ti_id]) for row in failed])]
