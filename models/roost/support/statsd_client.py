"""The client that sends metrics to a statsd server, which daemons know as ``Stats``.

Every call only writes into a bounded, coalescing buffer; one background thread resolves the
host, packs lines into datagrams and sends them.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from roost.support.metrics import Kind, find, wire_name
from roost.support.statsd_wire import Sender

__all__ = ["StatsdStats"]

# A gauge that is gone is sent as 0 this many reports long: one datagram may be lost.
_FADE_REPORTS = 3


class StatsdStats:
    """Metrics to a statsd server over UDP. Safe to use from any thread; mute in a forked child.

    Args:
        host: name or address of the server; looked up in the background, again every minute
            and after an error.
        port: its UDP port.
        prefix: put before every name; may hold dots.
        capacity: distinct series and timings that may wait; beyond it metrics are dropped.
        gather: seconds to collect before sending, so that datagrams are full.
    """

    def __init__(
        self,
        host: str,
        port: int = 8125,
        prefix: str = "roost",
        *,
        capacity: int = 20_000,
        gather: float = 0.1,
    ) -> None:
        self._prefix = prefix
        self._capacity = capacity
        self._gather = gather
        self._sender = Sender(host, port)
        self._dropped_name = wire_name(find("statsd.dropped"), {}, prefix)
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = self._urgent = self._busy = self._reporting = False
        self._dropped = 0
        # What waits to be sent: the last value of a gauge, the sum of a counter, every timing.
        self._gauges: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._timings: list[tuple[str, float]] = []
        # Gauges answered for, and how many more reports a vanished one is sent as 0.
        self._held: dict[str, int] = {}
        self._names: dict[tuple[str, Kind, tuple[tuple[str, str], ...]], str] = {}

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def reporting(self) -> bool:
        return self._reporting

    def gauge(self, name: str, value: float, **labels: str) -> None:
        wire = self._name(name, "gauge", labels)
        with self._buffer() as open_:
            if open_:
                self._held[wire] = _FADE_REPORTS
                self._set(wire, value)

    def incr(self, name: str, n: int = 1, **labels: str) -> None:
        wire = self._name(name, "counter", labels)
        with self._buffer() as open_:
            if open_ and self._room(wire in self._counts):
                self._counts[wire] = self._counts.get(wire, 0) + n

    def timing(self, name: str, ms: float, **labels: str) -> None:
        wire = self._name(name, "timer", labels)
        with self._buffer() as open_:
            if open_ and math.isfinite(ms) and self._room(False):
                self._timings.append((wire, ms))

    def report(self, readings: Iterable[tuple[str, float, dict[str, str]]]) -> None:
        values: dict[str, float] = {}
        for name, value, labels in readings:
            wire = self._name(name, "gauge", labels)
            values[wire] = values.get(wire, 0) + value  # look-alikes are one series: their sum
        with self._buffer() as open_:
            if open_:
                self._reporting = True
                self._replace(values)

    def forget(self) -> None:
        with self._buffer():
            self._reporting = False
            self._held.clear()
            self._gauges.clear()

    def zero_all(self) -> None:
        with self._buffer() as open_:
            if open_:
                for wire in self._held:
                    self._set(wire, 0)

    def flush(self, timeout: float = 1.0) -> bool:
        with self._buffer() as open_:
            if not open_:
                return not self._waiting()
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._busy and not self._waiting(), timeout)

    def close(self, timeout: float = 1.0) -> None:
        with self._buffer():
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout)

    @contextmanager
    def _buffer(self) -> Iterator[bool]:
        """Hold the buffer; yields False when nothing more may be put into it."""
        if self._pid != os.getpid():
            # The lock may have been held by another thread when this child was forked, and the
            # gauges are the parent's to answer for.
            self._changed, self._closed, self._thread = threading.Condition(), True, None
            self._pid = os.getpid()
        with self._changed:
            yield not self._closed

    def _name(self, name: str, kind: Kind, labels: dict[str, str]) -> str:
        key = (name, kind, tuple(labels.items()))
        wire = self._names.get(key)
        if wire is None:
            wire = wire_name(find(name, kind), labels, self._prefix)
            if len(self._names) >= self._capacity:
                self._names.clear()
            self._names[key] = wire
        return wire

    def _replace(self, values: dict[str, float]) -> None:
        for wire in [wire for wire in self._held if wire not in values]:
            self._held[wire] -= 1
            if self._held[wire] < 0:
                del self._held[wire]
            else:
                self._set(wire, 0)
        for wire, value in values.items():
            self._held[wire] = _FADE_REPORTS
            self._set(wire, value)

    def _set(self, wire: str, value: float) -> None:
        if math.isfinite(value) and self._room(wire in self._gauges):
            self._gauges[wire] = value

    def _waiting(self) -> int:
        return len(self._gauges) + len(self._counts) + len(self._timings)

    def _room(self, known: bool) -> bool:
        """Whether one more metric may wait; wakes the sender. Called with the lock held."""
        if not known and self._waiting() >= self._capacity:
            self._dropped += 1
            return False
        if self._thread is None:
            try:
                self._start()
            except RuntimeError:  # no more threads: metrics are not worth a daemon
                self._dropped += 1
                return False
        if not self._waiting():
            self._changed.notify_all()
        return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="roost-statsd", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        """The sender thread: wait for something, gather a little, send it."""
        told = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting())
                self._changed.wait_for(lambda: self._closed or self._urgent, self._gather)
                if not self._waiting():
                    if self._closed:
                        break
                    continue
                gauges, counts, timings = self._gauges, self._counts, self._timings
                self._gauges, self._counts, self._timings = {}, {}, []
                self._urgent, self._busy = False, True
                lost = self._dropped
            if lost > told:
                counts[self._dropped_name] = lost - told
            missed = self._sender.send(gauges, counts, timings, time.monotonic())
            if not missed:
                told = lost
            with self._changed:
                self._dropped += missed
                self._busy = False
                self._changed.notify_all()
        self._sender.close()
