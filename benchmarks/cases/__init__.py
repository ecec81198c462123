"""What is measured, one case a module; :data:`CASES` lists them in the order they run."""

from __future__ import annotations

from benchmarks.cases import (
    capacity,
    chain,
    defer,
    events,
    failover,
    fan,
    growth,
    idle,
    many,
    mapped,
    sched,
    start,
    timers,
    weights,
)
from benchmarks.harness import Case

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    "chain": chain.measure,
    "start": start.measure,
    "fan": fan.measure,
    "many": many.measure,
    "sched": sched.measure,
    "growth": growth.measure,
    "mapped": mapped.measure,
    "defer": defer.measure,
    "capacity": capacity.measure,
    "weights": weights.measure,
    "events": events.measure,
    "timers": timers.measure,
    "failover": failover.measure,
    "idle": idle.measure,
}
