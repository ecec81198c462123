"""Drives a hub with real processes in a test: starts dispatches, waits for what comes of them."""

from __future__ import annotations

import hashlib
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from roost.support.wire import Outcome, TaskSpec
from roost.worker.attendant import Asked
from roost.worker.hub import Hub, HubSettings
from roost.worker.leftovers import find_leftovers

__all__ = ["HEADER", "Driver", "make_spec"]

HEADER = """\
import os, signal, subprocess, sys, time
from datetime import datetime
from roost.dag import DAG, task

dag = DAG("d", schedule=None, start_date=datetime(2026, 1, 1))
"""


def make_spec(dispatch_id: int, task_id: str, **more: Any) -> TaskSpec:
    """A spec of DAG ``d`` with plain values."""
    values: dict[str, Any] = {
        "dispatch_id": dispatch_id,
        "ti_id": 1000 + dispatch_id,
        "dag_id": "d",
        "run_id": "manual__1",
        "task_id": task_id,
        "map_index": -1,
        "try_number": 1,
        "max_tries": 1,
        "run_type": "manual",
        "operator": "PythonOperator",
        "code_hash": "",
        "fileloc": "d.py",
        "logical_date": 0,
        "interval_start": 0,
        "interval_end": 0,
        "run_queued_at": 0,
        "run_start_date": 0,
        "start_date": 0,
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "conf": msgspec.Raw(b"{}"),
    }
    return TaskSpec(**{**values, **more})


class Driver:
    """One hub and the DAG file that its tasks come from.

    Args:
        home: folder for DAGs and logs.
        settings: fields of HubSettings that differ from the default.
    """

    def __init__(self, home: Path, **settings: Any) -> None:
        self.token = f"test-{uuid4().hex}"
        self.logs = home / "logs"
        (home / "dags").mkdir(exist_ok=True)
        values = {"dags_folder": str(home / "dags"), "log_folder": str(self.logs)}
        environ = {**os.environ, "ROOST__DATABASE__URL": "secret://canary"}
        self.hub = Hub(HubSettings(**{**values, **settings}), self.token, environ)
        self.outcomes: dict[int, Outcome] = {}
        self.asked: list[Asked] = []
        self.source = HEADER
        self._next = 1
        self._poll = select.poll()
        self._poll.register(self.hub.fileno(), select.POLLIN)
        self._closed = False

    def tasks(self, *bodies: str) -> None:
        """Define tasks ``t0``, ``t1``, … of the DAG file by the bodies of their functions."""
        parts = [HEADER]
        for number, body in enumerate(bodies):
            lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
            parts.append(f"@task(dag=dag)\ndef t{number}():\n{lines}\n\nt{number}()\n")
        self.source = "\n".join(parts)

    def start(self, task_id: str = "t0", **more: Any) -> int:
        """Start a dispatch; gives its id."""
        dispatch_id, self._next = self._next, self._next + 1
        version = hashlib.sha256(self.source.encode()).hexdigest()
        self.hub.start(make_spec(dispatch_id, task_id, code_hash=version, **more), self.source)
        return dispatch_id

    def step(self, timeout: float = 1.0) -> None:
        """Wait for the hub, at most ``timeout`` seconds, and let it turn."""
        self._poll.poll(timeout * 1000)
        self.turn()

    def turn(self) -> None:
        """Let the hub turn and take what it has."""
        self.hub.turn()
        for spec, outcome in self.hub.ended:
            assert spec.dispatch_id not in self.outcomes, "an outcome came twice"
            self.outcomes[spec.dispatch_id] = outcome
        self.hub.ended.clear()
        self.asked += self.hub.asked
        self.hub.asked.clear()

    def until(self, done: Callable[[], object], what: str, timeout: float = 30) -> None:
        """Turn the hub until ``done`` says so."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"waited {timeout:g} s for {what}"
            self.step(0.05)

    def outcome(self, dispatch_id: int) -> Outcome:
        """The outcome of a dispatch, as soon as there is one and its process is gone."""
        self.until(
            lambda: dispatch_id in self.outcomes and dispatch_id not in self.hub.dispatch_ids,
            f"the outcome of {dispatch_id}",
        )
        return self.outcomes[dispatch_id]

    def run(self, task_id: str = "t0", **more: Any) -> Outcome:
        """Start a dispatch and wait for the end of its process."""
        dispatch_id = self.start(task_id, **more)
        outcome = self.outcome(dispatch_id)
        self.until(lambda: self.hub.running == 0, "the end of the processes")
        return outcome

    def log(self, task_id: str = "t0", attempt: int = 1) -> str:
        """The log of one try."""
        path = self.logs / f"dag_id=d/run_id=manual__1/task_id={task_id}/attempt={attempt}.log"
        return path.read_text()

    def processes(self) -> list[int]:
        """Every process below this hub."""
        return find_leftovers(self.token)

    def close(self) -> None:
        """End everything."""
        if not self._closed:
            self._closed = True
            self.hub.close()
