"""Real metrics stores for the dashboards' queries, where they are installed (deploy/README.md)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["free_port", "graphite_python", "prometheus", "running", "statsd_command", "victoria"]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody used a moment ago."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def graphite_python() -> str | None:
    """The interpreter that has graphite-web and whisper, if somebody told."""
    return os.environ.get("ROOST_TEST_GRAPHITE_PYTHON")


def statsd_command() -> list[str] | None:
    """How to start etsy's statsd, if it is installed (`npm install -g statsd`)."""
    found = os.environ.get("ROOST_TEST_STATSD") or shutil.which("statsd")
    return [found] if found else None


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended with the block."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            yield server
        finally:
            server.kill()


def get(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data, timeout=10) as answer:  # noqa: S310  # our own server
        body: bytes = answer.read()
        return body


def wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until there is an answer; there is nothing to await in a foreign server."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            get(url)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"the server did not come up: {log.read_text()[-1000:]}")


class PromStore:
    """A server that answers PromQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expr: str, at: float) -> list[tuple[dict[str, str], float]]:
        """(labels, value) of every series of an instant query at a moment in seconds."""
        asked = urllib.parse.urlencode({"query": expr, "time": f"{at:.3f}"})
        answer: dict[str, Any] = json.loads(get(f"{self._url}/api/v1/query?{asked}"))
        assert answer["status"] == "success", answer
        return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]


@contextmanager
def victoria(text: str, folder: Path) -> Iterator[PromStore]:
    """VictoriaMetrics with these samples (Prometheus text, milliseconds)."""
    address = f"127.0.0.1:{free_port()}"
    command = ["victoria-metrics", f"-storageDataPath={folder / 'vm'}", "-retentionPeriod=1",
               f"-httpListenAddr={address}", "-search.latencyOffset=0s"]  # fmt: skip
    url = f"http://{address}"
    with running(command, folder / "vm.log") as server:
        wait_until_up(f"{url}/health", server, folder / "vm.log")
        get(f"{url}/api/v1/import/prometheus", text.encode())
        get(f"{url}/internal/force_flush")
        yield PromStore(url)


@contextmanager
def prometheus(text: str, folder: Path) -> Iterator[PromStore]:
    """Prometheus with these samples (Prometheus text, milliseconds)."""
    samples, blocks, config = folder / "samples.txt", folder / "blocks", folder / "none.yml"
    seconds = [f"{head} {int(ms) / 1000:.3f}" for head, _, ms in
               (line.rpartition(" ") for line in sorted(text.splitlines()))]  # fmt: skip
    samples.write_text("\n".join([*seconds, "# EOF\n"]), encoding="utf-8")
    config.write_text("", encoding="utf-8")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(samples), str(blocks)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={blocks}",
               f"--web.listen-address={address}"]  # fmt: skip
    url = f"http://{address}"
    with running(command, folder / "prometheus.log") as server:
        wait_until_up(f"{url}/-/ready", server, folder / "prometheus.log")
        yield PromStore(url)
