"""A million waits for a moment on one triggerer: what they weigh, and how late they fire."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import NamedTuple

from benchmarks import dags
from benchmarks.cases.copies import copy_waits
from benchmarks.harness import Bench, Record, percentile
from benchmarks.site import Site
from roost.models.engine import Sql, transact
from roost.support.clock import SECOND, now_us
from tests.support.waiting import wait_until

__all__ = ["Sample", "lateness", "measure", "sampled"]

_PENDING = {"postgresql": 1_000_000, "sqlite": 100_000}
_RATE = 2_000  # due in a second
_SECONDS = 10
_TOGETHER = 10_000
_DAY = 24 * 3600 * SECOND
_SAMPLE_S = 0.005

_WAITING = Sql("SELECT count(*) AS n FROM trigger WHERE lane = 'timer' AND fired_at IS NULL")
_FIRST = Sql("SELECT min(id) AS id FROM trigger")
_DUE = Sql(
    "UPDATE trigger SET due_at = :start + (id - :first) * :step WHERE id > :first AND id <= :last"
)
_EVENTS = Sql(
    "SELECT e.id, t.due_at FROM trigger_event e JOIN trigger t ON t.id = e.trigger_id "
    "WHERE e.trigger_id > :first AND e.trigger_id <= :last ORDER BY e.id"
)
_LEFT = Sql(
    "SELECT count(*) AS n FROM trigger WHERE id > :first AND id <= :last AND fired_at IS NULL"
)
_SEEN = Sql("SELECT {now} AS at, (SELECT max(id) FROM trigger_event) AS last")


class Sample(NamedTuple):
    """What had been committed at a moment of the database's clock: events up to this id."""

    at: int
    last: int


def measure(bench: Bench) -> Iterator[Record]:
    """1,000,000 on PostgreSQL, 100,000 on SQLite, as rows copied from one that a task made.

    Scheduler and worker are stopped: the events stay, and nothing but the triggerer is measured.
    """
    number = bench.size(_PENDING[bench.kind])
    rate, together = bench.size(_RATE), bench.size(_TOGETHER)
    steady = round(rate * _SECONDS * min(1.0, bench.scale * 2))
    number += bench.runs * (steady + together)  # those pend besides
    with bench.site() as site:
        site.start_with({"wait": dags.defer("wait", 1, site.witness)})
        site.trigger(["wait"], ["r"], f'{{"moment": {time.time() + 1e6:.0f}}}')
        wait_until(lambda: site.rows(_WAITING)[0].n == 1, 30, "the first timer")
        site.stop("scheduler", "worker")
        site.quiet()
        weight = site.memory_mb("triggerer")["triggerer"]
        copy_waits(site, number, {"due_at": f"{now_us() + _DAY} + t.map_index * 1000"})
        first = site.rows(_FIRST)[0].id
        for run in range(bench.runs):
            yield _waiting(bench, site, run, weight)
            yield _due(bench, site, run, first, steady, SECOND // rate)
            yield _due(bench, site, run, first + steady, together, 0)
            first += steady + together
            grown = site.memory_mb("triggerer")["triggerer"] - weight
            yield bench.record(run, {"timers_grown_mb": grown})


def _waiting(bench: Bench, site: Site, run: int, weight: float) -> Record:
    site.quiet()
    span = site.span()
    time.sleep(10 * min(1.0, bench.scale * 2))
    wall, cpu, _ = span.done()
    grown = site.memory_mb("triggerer")["triggerer"] - weight
    figures = {
        "timers_empty_mb": weight,
        "timers_grown_mb": grown,
        "timers_waiting_cpu_pct": 100 * cpu["triggerer"] / wall,
    }
    return bench.record(run, figures)


def _due(bench: Bench, site: Site, run: int, first: int, number: int, step: int) -> Record:
    """``number`` triggers after ``first`` are due, ``step`` microseconds apart."""
    window = {"first": first, "last": first + number}
    start = now_us() + 2 * SECOND
    transact(site.engine, lambda tx: tx.run(_DUE, start=start, step=step, **window))
    site.ring("triggerer")
    if now_us() > start:
        raise RuntimeError("the first were due before all were written")
    end = start + number * step
    with sampled(site, _SEEN) as samples:
        time.sleep((start - now_us()) / SECOND)
        span = site.span()
        time.sleep(max(0, end - now_us()) / SECOND)
        wait_until(lambda: site.rows(_LEFT, **window)[0].n == 0, 120, "all timers to fire")
    events = site.rows(_EVENTS, **window)
    if len(events) != number:
        raise RuntimeError(f"{len(events)} events of {number} timers")
    late = lateness(samples, [(event.id, event.due_at) for event in events])
    if not step:
        return bench.record(run, {"timers_together_per_s": number / max(late)}, span)
    quarter = late[-len(late) // 4 :]
    figures = {
        "timers_p50_ms": percentile(late, 0.5) * 1e3,
        "timers_p99_ms": percentile(late, 0.99) * 1e3,
        "timers_max_ms": max(late) * 1e3,
        "timers_p99_at_the_end_ms": percentile(quarter, 0.99) * 1e3,
        "timers_due_per_s": SECOND / step,
    }
    return bench.record(run, figures, span)


@contextmanager
def sampled(site: Site, seen: Sql) -> Iterator[list[Sample]]:
    """Which rows others can see, again and again: what commits late is not taken for early.

    Args:
        seen: gives the database's clock and the greatest id of a table.

    Yields:
        A list that is filled, in the order of time, when the block has ended; the last look sees
        every row that was there at the end of the block.
    """
    samples: list[Sample] = []
    stop = Event()

    def look_on() -> None:
        stopping = False
        while not stopping:
            stopping = stop.wait(_SAMPLE_S)
            (row,) = site.rows(seen)
            if row.last is not None:
                samples.append(Sample(row.at, row.last))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look_on)
        try:
            yield samples
        finally:
            stop.set()
        looking.result()


def lateness(samples: Sequence[Sample], events: Sequence[tuple[int, int]]) -> list[float]:
    """Seconds from when each of ``(event id, due moment)`` was due until it was first seen.

    Args:
        samples: in the order they were taken, past the last event.
        events: as they were stored.
    """
    ids = [sample.last for sample in samples]
    return [(samples[bisect_left(ids, id_)].at - due) / SECOND for id_, due in events]
