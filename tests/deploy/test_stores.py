"""Every query of the dashboards, run against the real stores that are installed.

Without them test_dashboards.py checks the same queries against what the client sends.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.generate import HERE
from deploy.panels import PANELS, Query
from roost.support.metrics import METRICS, exporter_mapping, wire_name
from roost.support.statsd_client import StatsdStats
from tests.deploy.emitted import Emitted, emit_all, wire_lines
from tests.deploy.exporter import Exporter, exposition
from tests.deploy.minigraphite import Series, render, statsd_paths
from tests.deploy.panels import expected
from tests.deploy.stores import (
    PromStore,
    free_port,
    graphite_python,
    prometheus,
    running,
    statsd_command,
    victoria,
)

PROM_STORES = {"victoria-metrics": victoria, "prometheus": prometheus}
needs_statsd = pytest.mark.skipif(
    statsd_command() is None, reason="needs etsy's statsd: npm install -g statsd"
)
needs_graphite = pytest.mark.skipif(
    graphite_python() is None,
    reason="needs graphite-web: set ROOST_TEST_GRAPHITE_PYTHON (deploy/README.md)",
)


def drawn(prefix: str, kind: str) -> Iterator[tuple[Query, dict[str, Any]]]:
    """Every query of a committed dashboard beside what it is meant to ask."""
    board = json.loads((HERE / f"grafana/{prefix}-{kind}.json").read_text(encoding="utf-8"))
    for panel, made in zip(PANELS, board["panels"], strict=True):
        yield from zip(panel.queries, made["targets"], strict=True)


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels[found[1]], template)


@pytest.mark.parametrize("prefix", ["roost", "airflow"])
@pytest.mark.parametrize("store", PROM_STORES)
def test_every_promql_query_gives_the_numbers_that_were_sent(
    store: str, prefix: str, tmp_path: Path
) -> None:
    if shutil.which(store) is None:
        pytest.skip(f"needs {store} (Debian: apt-get install {store})")
    told, lines = wire_lines(prefix)
    exporter = Exporter(exporter_mapping(prefix))
    mapped = [exporter.map(line) for line in lines]
    # Counters that were hit once in each second since, scraped every 15 seconds.
    end = int(time.time()) - 60
    scrapes = [exposition(mapped, (end - 300 + at) * 1000, at) for at in range(0, 301, 15)]
    with PROM_STORES[store]("".join(scrapes), tmp_path) as server:
        for query, target in drawn(prefix, "prometheus"):
            found = ask(server, target, end)
            unit = 1000 if query.metric.kind == "timer" else 1
            wanted = {name: value / unit for name, value in expected(query, told).items()}
            assert found == pytest.approx(wanted), target["expr"]


def ask(server: PromStore, target: dict[str, Any], at: float) -> dict[str, float]:
    rows = server.query(target["expr"].replace("$__rate_interval", "1m"), at)
    found = {legend(target["legendFormat"], labels): value for labels, value in rows}
    assert len(found) == len(rows), "two lines of one name"
    return found


@pytest.mark.parametrize("prefix", ["roost", "airflow"])
@needs_graphite
def test_graphite_web_gives_the_numbers_that_were_sent(prefix: str, tmp_path: Path) -> None:
    told, lines = wire_lines(prefix)
    queries = list(drawn(prefix, "graphite"))
    asked = {
        "folder": str(tmp_path),
        "now": int(time.time()) // 10 * 10,
        "paths": statsd_paths(lines),
        "targets": [target["target"] for _, target in queries],
    }
    script = Path(__file__).with_name("graphite_web.py")
    answer = subprocess.run(
        [graphite_python() or "", str(script)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    for (query, target), found in zip(queries, json.loads(answer.stdout), strict=True):
        assert found == pytest.approx(expected(query, told)), target["target"]


@needs_statsd
def test_a_real_statsd_server_writes_the_paths_that_the_dashboards_ask_for(
    tmp_path: Path,
) -> None:
    with statsd_server(tmp_path) as (port, flushes):
        stats = StatsdStats("127.0.0.1", port)
        told = emit_all(stats)
        stats.close(10)
        store = gather(flushes, told)
    for query, target in drawn("roost", "graphite"):
        assert render(target["target"], store) == pytest.approx(expected(query, told))


@contextmanager
def statsd_server(folder: Path) -> Iterator[tuple[int, Iterator[str]]]:
    """The UDP port of a statsd server, and the lines it writes to Graphite once a second."""
    with socket.socket() as graphite:
        graphite.bind(("127.0.0.1", 0))
        graphite.listen()
        graphite.settimeout(30)
        port = free_port(socket.SOCK_DGRAM)
        config = folder / "statsd.json"
        config.write_text(
            json.dumps(
                {
                    "port": port,
                    "address": "127.0.0.1",
                    "mgmt_address": "127.0.0.1",
                    "mgmt_port": free_port(),
                    "graphiteHost": "127.0.0.1",
                    "graphitePort": graphite.getsockname()[1],
                    "flushInterval": 1000,
                    "backends": ["./backends/graphite"],
                }
            )
        )
        with running([*(statsd_command() or ()), str(config)], folder / "statsd.log"):
            lines = flushed(graphite)
            next(lines)  # it is up
            yield port, lines


def flushed(graphite: socket.socket) -> Iterator[str]:
    """Lines of one flush after another; each comes in a connection of its own."""
    while True:
        connection, _ = graphite.accept()
        with connection, connection.makefile(encoding="ascii") as lines:
            yield from lines


def gather(lines: Iterator[str], told: list[Emitted]) -> Series:
    """Put flushes together until all is there: the datagrams may fall into two of them."""
    store: Series = {}
    space = {"gauge": "stats.gauges.{}", "counter": "stats.{}", "timer": "stats.timers.{}.mean"}
    missing = {space[m.kind].format(wire_name(m, labels, "roost")) for m, labels, _ in told}
    for line in lines:
        path, value, _ = line.split()
        counted = path.startswith("stats.") and not path.startswith(("stats.g", "stats.timers"))
        if counted:
            store[path] = store.get(path, 0) + float(value)
        elif float(value) or path not in store:
            store[path] = float(value)
        missing.discard(path)
        if not missing:
            break
    assert len(METRICS) < len(store)
    return store
