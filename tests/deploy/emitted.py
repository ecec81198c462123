"""Emits every metric of the registry through the real client, and says what was emitted."""

from __future__ import annotations

import socket
from itertools import product
from typing import NamedTuple

from roost.support.metrics import METRICS, Metric
from roost.support.stats import Stats
from roost.support.statsd_client import StatsdStats

# Some of each need mending before they can be part of a name.
VALUES = {
    "pool": ("default_pool", "side.pool"),
    "queue": ("default", "gpu"),
    "dag": ("etl", "repört"),
    "task": ("load", "group.task"),
    "state": ("success", "failed"),
    "host": ("a.example", "b"),
    "status": ("202", "404"),
}


class Emitted(NamedTuple):
    """One series and the number given for it: a gauge's value, a count, or milliseconds."""

    metric: Metric
    labels: dict[str, str]
    value: float


def emit_all(stats: Stats) -> list[Emitted]:
    """Every metric with every combination of two values for each label; each number differs."""
    told: list[Emitted] = []
    for metric in METRICS:
        for values in product(*(VALUES[label] for label in metric.labels)):
            labels = dict(zip(metric.labels, values, strict=True))
            one = Emitted(metric, labels, len(told) + 1)
            if metric.kind == "gauge":
                stats.gauge(metric.name, one.value, **labels)
            elif metric.kind == "counter":
                stats.incr(metric.name, int(one.value), **labels)
            else:
                stats.timing(metric.name, one.value, **labels)
            told.append(one)
    return told


def wire_lines(prefix: str) -> tuple[list[Emitted], list[str]]:
    """What was emitted under ``prefix``, and the statsd lines a server received."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        stats = StatsdStats("127.0.0.1", server.getsockname()[1], prefix)
        told = emit_all(stats)
        assert stats.flush(10)
        stats.close(10)
        lines: list[str] = []
        while True:
            try:
                lines += server.recv(65536).decode("ascii").split("\n")
            except BlockingIOError:
                return told, lines
