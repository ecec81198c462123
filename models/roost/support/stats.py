"""What daemons tell their numbers to: it never raises and never blocks.

A statsd server that is unreachable, unresolvable or gone costs nothing but a counter of what was
lost (``statsd.dropped``); see :mod:`roost.support.statsd_client`. Only a mistake of ours, a name
or label that the registry does not hold, raises, and does so with metrics switched off too.

    stats = open_stats(host, port, prefix)        # host "" switches metrics off
    stats.incr("ti.start", dag="etl", task="load")
    stats.timing("scheduler.scheduler_loop_duration", 3.2)
    stats.report(gauges_from(...))                # all gauges at once, every few seconds
    stats.zero_all(); stats.close()               # on the way out
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from roost.support.metrics import Kind, find, wire_name

__all__ = ["NullStats", "Reading", "Stats", "open_stats"]


class Reading(NamedTuple):
    """One gauge as it stands now, e.g. ``Reading("pool.open_slots", 3, {"pool": "p"})``."""

    name: str
    value: float
    labels: dict[str, str]


class Stats(Protocol):
    """What daemons use to tell their numbers. Names are those of :mod:`roost.support.metrics`."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set one gauge to ``value``."""

    def incr(self, name: str, n: int = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""

    def timing(self, name: str, ms: float, **labels: str) -> None:
        """Report one duration in milliseconds."""

    def report(self, readings: Iterable[Reading]) -> None:
        """Set all gauges: those that an earlier report held and this one lacks become 0."""

    @property
    def reporting(self) -> bool:
        """Whether this process has reported gauges since it began or was told to forget them."""

    def forget(self) -> None:
        """Stop answering for the gauges, because another process reports them from now on."""

    def zero_all(self) -> None:
        """Set every gauge this process answers for to 0 (2D: gauges go to 0 on exit)."""

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait up to ``timeout`` seconds until all is sent or given up; True when it is."""

    def close(self, timeout: float = 1.0) -> None:
        """Flush and stop; later calls are ignored."""

    @property
    def dropped(self) -> int:
        """How many metrics were lost so far."""


def open_stats(host: str, port: int = 8125, prefix: str = "roost") -> Stats:
    """A client for the statsd server at ``host``:``port``; one that does nothing for host "".

    Neither resolves the host nor starts a thread before the first metric.
    """
    if not host:
        return NullStats()
    from roost.support.statsd_client import StatsdStats  # start-up cost, off by default

    return StatsdStats(host, port, prefix)


class NullStats:
    """Metrics switched off; still checks names, so that a mistake shows without a server."""

    dropped = 0
    reporting = False

    def __init__(self) -> None:
        self._checked: set[tuple[str, ...]] = set()

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self._check(name, "gauge", labels)

    def incr(self, name: str, n: int = 1, **labels: str) -> None:
        self._check(name, "counter", labels)

    def timing(self, name: str, ms: float, **labels: str) -> None:
        self._check(name, "timer", labels)

    def report(self, readings: Iterable[Reading]) -> None:
        for name, _, labels in readings:
            self._check(name, "gauge", labels)

    def forget(self) -> None:
        """Nothing to forget."""

    def zero_all(self) -> None:
        """Nothing to zero."""

    def flush(self, timeout: float = 1.0) -> bool:
        return True

    def close(self, timeout: float = 1.0) -> None:
        """Nothing to close."""

    def _check(self, name: str, kind: Kind, labels: dict[str, str]) -> None:
        call = (name, kind, *labels)  # the labels' values may be endless, their names are not
        if call not in self._checked:
            wire_name(find(name, kind), labels)
            self._checked.add(call)
